"""From settings and a claimed place to the one frozen value that every process reads."""

from ipaddress import IPv4Network

import msgspec

from sandpost.config.claims import folder
from sandpost.config.ids import OWN_IDS, ids_each
from sandpost.config.kinds import split_address, split_url
from sandpost.config.names import NO_NAMES, Names
from sandpost.config.resolve import Settings
from sandpost.kernel import files
from sandpost.model.host import INSTANCES, Host, Kafka, Modules, Otlp, Users
from sandpost.model.modules import REGISTRIES

LIVE = (
    "trusted_proxies",
    "runsc_command",
    "pool_size",
    "parallel_starts",
    "queue",
    "memory_reserve",
    "drain_timeout",
    "head_timeout",
    "body_timeout",
    "keep_alive",
    "max_head",
    "max_connections",
    "max_programs",
    "modules",
    "defaults",
    "resolvers",
    "own_names",
    "egress_rate",
    "spool",
    "keep",
    "keep_all",
    "keep_for",
    "request_records",
)
"""Fields that change while an installation runs."""
_OF_MODULES = (*REGISTRIES, "hosts", "size", "files", "keep", "count", "memory", "timeout", "parallel")
_OF_KAFKA = ("brokers", "topic", "create", "partitions", "replicas", "compression", "tls", "user")


def make(
    settings: Settings,
    *,
    instance: int,
    image: str,
    runtime_command: str,
    cgroups: int,
    cores: int,
    runsc_command: str = "",
    names: Names = NO_NAMES,
) -> Host:
    """Return the installation that `settings` describe at place `instance`. Pure."""
    block = IPv4Network(settings["network.block"])
    network = list(block.subnets(INSTANCES.bit_length() - 1))[instance]
    ids = settings["uids.base"] + instance * ids_each(block)
    host, port = split_address(settings["listen"])
    limits = settings.limits
    return Host(
        instance=instance,
        state_dir=settings["state_dir"],
        run_dir=folder(settings["run_dir"], instance),
        image_dir=settings["image_dir"],
        image=image,
        listen_host=host,
        listen_port=port,
        tls_cert=settings["listen.tls_cert"],
        tls_key=settings["listen.tls_key"],
        trusted_proxies=settings["trusted_proxies"],
        metrics_listen=settings["metrics.listen"],
        workers=settings["workers"] or cores,
        users=Users(proxy=ids + 1, api=ids + 2, collector=ids + 3, gid=ids + 4, egress=ids + 5),
        sandbox_network=str(network),
        sandbox_uids=ids + OWN_IDS,
        runtime_command=runtime_command,
        runsc_command=runsc_command,
        engine=settings["engine.runtime"],
        cgroups=cgroups,
        pool_size=settings["pool_size"],
        parallel_starts=settings["parallel_starts"] or cores + 1,
        queue=settings["queue"],
        memory_reserve=settings["memory_reserve"],
        drain_timeout=settings["drain_timeout"],
        head_timeout=settings["http.head_timeout"],
        body_timeout=settings["http.body_timeout"],
        keep_alive=settings["http.keep_alive"],
        max_head=settings["http.max_head"],
        max_connections=settings["http.max_connections"],
        max_programs=settings["http.max_programs"],
        modules=Modules(**{name: settings[f"modules.{name}"] for name in _OF_MODULES}),
        defaults=limits,
        resolvers=settings["egress.resolvers"] or list(names.resolvers),
        own_names=list(names.own),
        egress_rate=settings["egress.rate"],
        spool=settings["logs.spool"],
        keep=settings["logs.keep"],
        keep_all=settings["logs.keep_all"],
        keep_for=settings["logs.keep_for"],
        kafka=_kafka(settings) if settings["logs.bus"] == "kafka" else None,
        stdout=settings["logs.stdout"],
        otlp=_otlp(settings) if settings["logs.otlp.endpoint"] else None,
        request_records=settings["logs.requests"],
    )


def _otlp(settings: Settings) -> Otlp:
    return Otlp(
        endpoint=settings["logs.otlp.endpoint"],
        port=split_url(settings["logs.otlp.endpoint"])[1],
        ca=bool(settings["logs.otlp.ca"]),
        headers=bool(settings["logs.otlp.headers_file"]),
        tenants=settings["logs.otlp.tenants"],
    )


def _kafka(settings: Settings) -> Kafka:
    of = {setting: settings[f"logs.kafka.{setting}"] for setting in _OF_KAFKA}
    ports = {split_address(broker)[1] for broker in of["brokers"]}
    return Kafka(
        **of,
        ports=sorted(ports.union(settings["logs.kafka.ports"])),
        tls_ca=bool(settings["logs.kafka.tls_ca"]),
        tls_cert=bool(settings["logs.kafka.tls_cert"]),
        sasl="" if settings["logs.kafka.sasl"] == "none" else settings["logs.kafka.sasl"],
    )


def take_up(old: Host, new: Host) -> Host:
    """Return `old` with what a running installation takes up of `new`. Pure."""
    return msgspec.structs.replace(old, **{name: getattr(new, name) for name in LIVE})


def write(host: Host) -> str:
    """Replace `<run_dir>/host.json` atomically, for all to read; return its path."""
    path = host.path("host.json")
    files.replace(path, msgspec.json.format(msgspec.json.encode(host), indent=1), 0o644)
    return path

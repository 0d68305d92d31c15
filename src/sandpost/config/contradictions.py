"""Settings that are good one by one and wrong together: the first found, as a sentence. Pure."""

from collections.abc import Collection, Mapping
from ipaddress import IPv4Network, ip_address
from typing import Any

from sandpost.config.ids import END, ids_each
from sandpost.config.kinds import entry_of, split_address, split_url
from sandpost.config.table import LIMIT_NAMES
from sandpost.model.bounds import check_together
from sandpost.model.egress import parse_egress
from sandpost.model.errors import InvalidValue
from sandpost.model.host import INSTANCES
from sandpost.model.limits import Limits
from sandpost.model.modules import REGISTRIES
from sandpost.model.units import format_size

_KAFKA = "logs.kafka."
_LOOPBACK_NAMES = frozenset({"localhost"})


def contradiction(values: Mapping[str, Any], given: Collection[str]) -> str | None:
    """Return what is wrong with `values` together; None if nothing is. `given` names those that are no defaults."""
    return (
        _listener(values)
        or _folders(values)
        or _network(values)
        or _runtime(values)
        or _limits(values, given)
        or _logs(values)
        or _kafka(values, given)
        or _otlp(values)
        or _modules(values)
        or _secrets(values)
    )


def limits_of(values: Mapping[str, Any]) -> Limits:
    """Return the default limits of tenants that `values` hold."""
    return Limits(**{name: values[f"limits.{name}"] for name in LIMIT_NAMES})


def is_loopback(host: str) -> bool:
    """Whether nobody beyond this machine reaches a listener on `host`."""
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_in(block: IPv4Network, resolver: str) -> bool:
    """Whether the address of a resolver (`host:port`) lies in the addresses of sandboxes."""
    address = ip_address(split_address(resolver)[0])
    return address.version == 4 and address in block


def _listener(values: Mapping[str, Any]) -> str | None:
    if not values["listen"]:
        return "`listen` is empty: write host and port, such as 127.0.0.1:8721"
    cert, key = values["listen.tls_cert"], values["listen.tls_key"]
    if bool(cert) != bool(key):
        have, lack = ("listen.tls_cert", "listen.tls_key") if cert else ("listen.tls_key", "listen.tls_cert")
        return f"`{have}` is set and `{lack}` is not: TLS needs both"
    host, _ = split_address(values["listen"])
    if not (is_loopback(host) or cert or values["trusted_proxies"] or values["listen.insecure"]):
        return (
            f"`listen` is {values['listen']}, which others reach, and keys would travel in clear text: set "
            "listen.tls_cert and listen.tls_key, or trusted_proxies if a proxy of yours ends TLS, or listen.insecure"
        )
    if values["metrics.listen"] and values["metrics.listen"] == values["listen"]:
        return f"`metrics.listen` and `listen` are both {values['listen']}: choose another port for one"
    return None


def _folders(values: Mapping[str, Any]) -> str | None:
    for name in ("state_dir", "run_dir", "image_dir"):
        if values[name] in {"", "/"}:
            return f"`{name}` must be a folder of its own"
    pairs = (("state_dir", "run_dir"), ("run_dir", "state_dir"), ("image_dir", "run_dir"))
    for inner, outer in pairs:
        if f"{values[inner]}/".startswith(f"{values[outer]}/"):
            return f"`{inner}` ({values[inner]}) lies in `{outer}` ({values[outer]}): choose folders apart"
    if values["image_dir"] == values["state_dir"]:
        return f"`image_dir` and `state_dir` are both {values['state_dir']}: choose folders apart"
    return None


def _network(values: Mapping[str, Any]) -> str | None:
    block = IPv4Network(values["network.block"])
    # A sixteenth must hold more sandboxes than are dealt at once, or an address would come back early.
    if block.prefixlen > 22:
        return f"`network.block` {block} is too small: {INSTANCES} installations need at least a /22"
    if block.prefixlen < 10:
        return f"`network.block` {block} is too large: its user ids would not fit; use a /10 or smaller"
    if block.is_loopback or block.is_multicast or block.is_link_local:
        return f"`network.block` {block} has a meaning of its own: use private addresses such as 198.18.0.0/15"
    own = [shown for shown in values["egress.resolvers"] if is_in(block, shown)]
    if own:
        return f"`egress.resolvers` {own[0]} lies in `network.block` {block}: sandboxes' resolver would ask itself"
    slots = block.num_addresses // INSTANCES // 2 - 1
    if values["pool_size"] > slots // 2:
        return f"`pool_size` {values['pool_size']} is too much for `network.block` {block}: it has {slots} sandboxes"
    base, needed = values["uids.base"], INSTANCES * ids_each(block)
    if base + needed > END:
        return f"`uids.base` {base} leaves no room for the {needed} ids of `network.block` {block}: lower one of them"
    return None


def _runtime(values: Mapping[str, Any]) -> str | None:
    if not values["oci.runtime"]:
        return "`oci.runtime` is empty: write a path or a name on PATH, such as runc, or leave it out"
    return None


def _limits(values: Mapping[str, Any], given: Collection[str]) -> str | None:
    try:
        check_together(limits_of(values), given=[name.removeprefix("limits.") for name in given])
    except InvalidValue as error:
        return error.message
    return None


def _logs(values: Mapping[str, Any]) -> str | None:
    if values["logs.keep_all"] < values["logs.keep"]:
        return (
            f"`logs.keep` {format_size(values['logs.keep'])} of one tenant is more than `logs.keep_all` "
            f"{format_size(values['logs.keep_all'])} of all: raise that one, or lower the other"
        )
    return None


def _kafka(values: Mapping[str, Any], given: Collection[str]) -> str | None:
    brokers, sasl = values["logs.kafka.brokers"], values["logs.kafka.sasl"]
    if values["logs.bus"] != "kafka":
        if brokers and "logs.bus" not in given:
            return "`logs.kafka.brokers` is set and `logs.bus` is not: set that to kafka, or to local to go on without"
        return None
    if not brokers:
        return "`logs.bus` is kafka and `logs.kafka.brokers` is empty: write host and port, such as kafka1:9092"
    for name in ("tls_ca", "tls_cert", "tls_key"):
        if values[_KAFKA + name] and not values["logs.kafka.tls"]:
            return f"`{_KAFKA}{name}` is set and `logs.kafka.tls` is false: set that too, or leave the file out"
    for have, lack in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if values[_KAFKA + have] and not values[_KAFKA + lack]:
            return f"`{_KAFKA}{have}` is set and `{_KAFKA}{lack}` is not: a certificate needs its key"
    for name in ("user", "password_file"):
        if values[_KAFKA + name] and sasl == "none":
            return f"`{_KAFKA}{name}` is set and `logs.kafka.sasl` is none: set that to what the brokers take"
        if not values[_KAFKA + name] and sasl != "none":
            return f"`logs.kafka.sasl` is {sasl} and `{_KAFKA}{name}` is empty: it needs user and password_file"
    if sasl == "PLAIN" and not values["logs.kafka.tls"] and not all(map(_is_near, brokers)):
        return (
            "`logs.kafka.sasl` is PLAIN without TLS, and the password would travel in clear text: set logs.kafka.tls, "
            "or SCRAM-SHA-512"
        )
    return None


def _otlp(values: Mapping[str, Any]) -> str | None:
    endpoint = values["logs.otlp.endpoint"]
    for name in ("headers_file", "ca"):
        if values[f"logs.otlp.{name}"] and not endpoint:
            return f"`logs.otlp.{name}` is set and `logs.otlp.endpoint` is not: set that too, or leave the file out"
    if endpoint.startswith("https:"):
        return None
    if values["logs.otlp.ca"]:
        return "`logs.otlp.ca` is set and `logs.otlp.endpoint` is no https URL: make it one, or leave the file out"
    if values["logs.otlp.headers_file"] and not is_loopback(split_url(endpoint)[0]):
        return (
            "`logs.otlp.headers_file` is set and its headers would travel in clear text: make `logs.otlp.endpoint` an "
            "https URL"
        )
    return None


def _modules(values: Mapping[str, Any]) -> str | None:
    size, memory = values["modules.size"], values["modules.memory"]
    if size > memory // 2:
        # npm keeps what it fetched beside what it makes of it, and itself takes some 100 MiB.
        return (
            f"`modules.size` {format_size(size)} is more than half of `modules.memory` {format_size(memory)}, in which "
            "an installation makes its files: raise that one, or lower the other"
        )
    if values["modules.keep"] < size:
        return (
            f"`modules.keep` {format_size(values['modules.keep'])} of all modules is less than `modules.size` "
            f"{format_size(size)} of one: raise that one, or lower the other"
        )
    for name in REGISTRIES:
        if (url := values[f"modules.{name}"]) and (problem := _unreachable(entry_of(url))):
            return f"`modules.{name}`: {problem}"
    for host in values["modules.hosts"]:
        if problem := _unreachable(host):
            return f"`modules.hosts`: {problem}"
    return None


def _unreachable(entry: str) -> str | None:
    """Return why an installation, which is a sandbox like any, could not reach a host; None if it can."""
    try:
        parse_egress(f"allow:{entry}")
    except InvalidValue as error:
        return error.message.replace(" in the allow-list", "")
    return None


def _is_near(broker: str) -> bool:
    return is_loopback(split_address(broker)[0])


def _secrets(values: Mapping[str, Any]) -> str | None:
    if values["admin_key"] and values["admin_key_file"]:
        return "`admin_key` and `admin_key_file` are both set: keep one"
    return None

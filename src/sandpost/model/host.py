"""What one installation is, as its supervisor decided it: every process reads this one frozen value.

The supervisor writes it to `<run_dir>/host.json` (mode 0644, no secrets) and starts each part with
`sandpost PART --host PATH`. Paths of sockets and folders are derived here and nowhere else.
"""

import os
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Literal

import msgspec

from sandpost.model.limits import EngineName, Limits

SANDBOX_PORT = 8000
"""TCP port of the runtime inside every sandbox."""
RESOLVER_PORT = 53
"""UDP and TCP port of the sandboxes' resolver, on `Host.platform_address`."""
GATE_PORT = 8443
"""TCP port on `Host.platform_address` where egress takes connections of tenants with an allow-list. No sandbox
reaches it by its own name: the firewall leads connections there."""
IDS_PER_SANDBOX = 8
"""Host uids (and gids) of one sandbox's range; the first is its unused uid 0, the second its user."""
PLATFORM_PORTS = (("udp", 53), ("tcp", 53), ("tcp", GATE_PORT))
"""What listens at `platform_address`, in the order in which `egress` inherits the sockets."""
FIFOS = ("out", "err", "log")
"""The three FIFOs of a sandbox, stdout, stderr and frames: their order in its folder and in messages."""
INSTANCES = 16
"""Installations that one machine can hold; each owns a sixteenth of the address and uid blocks."""


class Users(msgspec.Struct, frozen=True, kw_only=True):
    """Numeric users of the unprivileged parts; they need no entry in /etc/passwd. `gid` is common."""

    proxy: int
    api: int
    collector: int
    egress: int
    gid: int


Compression = Literal["none", "gzip", "lz4", "zstd"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
"""What a Kafka's records are compressed with, and how its users say who they are (SASL)."""
KAFKA_FILES = ("ca.pem", "cert.pem", "key.pem", "password")
"""What may lie in a part's `Host.kafka_dir`."""


class Kafka(msgspec.Struct, frozen=True, kw_only=True):
    """How a Kafka is reached and used. What is secret of it lies in the files of `Host.kafka_dir`."""

    brokers: list[str]
    """`host:port`."""
    ports: list[int]
    """Every TCP port at which a broker may be."""
    topic: str
    create: bool
    partitions: int
    replicas: int
    compression: Compression
    tls: bool
    tls_ca: bool
    """Whether there are authorities of its own, `ca.pem`."""
    tls_cert: bool
    """Whether there are `cert.pem` and `key.pem`."""
    sasl: Mechanism | Literal[""]
    """Empty: none; else there is `password`."""
    user: str


OTLP_FILES = ("ca.pem", "headers")
"""What may lie in `Host.otlp_dir`."""


class Otlp(msgspec.Struct, frozen=True, kw_only=True):
    """Where records go by OTLP/HTTP. What is secret of it lies in the files of `Host.otlp_dir`."""

    endpoint: str
    """A URL, with the path of logs."""
    port: int
    ca: bool
    """Whether there is `ca.pem`."""
    headers: bool
    """Whether there is `headers`."""
    tenants: bool
    """Whether tenants' streams go there too."""


class Modules(msgspec.Struct, frozen=True, kw_only=True):
    """Where modules of npm and PyPI come from, and what the store of them may hold. Sizes bytes, durations seconds."""

    npm: str = ""
    """URL of the registry; empty: no module of it can be added."""
    pypi: str = ""
    """URL of the simple index."""
    hosts: list[str] = []
    """Further `host:port` of which a builder fetches, such as where an index keeps its files."""
    size: int = 1 << 28
    """Bytes of one module with all that it depends on."""
    files: int = 50_000
    keep: int = 10 << 30
    """Bytes of all modules together."""
    count: int = 1000
    """Modules that are known at once, in whatever state."""
    memory: int = 1 << 30
    """Of a builder, its files included."""
    timeout: float = 600
    """For one module, from the builder's start to the last byte."""
    parallel: int = 1


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One installation on one machine. Sizes bytes, durations seconds."""

    instance: int
    """0 to 15; names of interfaces, nft table, cgroup parent and run folder carry it in hexadecimal."""
    state_dir: str
    run_dir: str
    """`<run root>/<instance>`, in tmpfs: sockets, records of the running state, bundles, FIFOs."""
    image_dir: str
    """Folder of built images; `image` is the digest of the one in use."""
    image: str
    listen_host: str
    listen_port: int
    tls_cert: str = ""
    tls_key: str = ""
    trusted_proxies: list[str] = []
    metrics_listen: str = ""
    """`host:port` of the Prometheus listener; empty: none."""
    workers: int
    users: Users
    sandbox_network: str
    """This instance's sixteenth of the address block, such as `198.18.0.0/19`."""
    sandbox_uids: int
    """First host uid of this instance's sixteenth of the uid block; slot n owns `IDS_PER_SANDBOX` from there."""
    runtime_command: str
    """The program runc, such as `/usr/sbin/runc`; empty: not there."""
    runsc_command: str = ""
    """The program runsc; empty: not there."""
    engine: EngineName = "runc"
    """What makes the sandboxes of tenants that are not set to another one."""
    cgroups: int
    """1 or 2."""
    pool_size: int
    parallel_starts: int
    queue: int
    """First requests of new tenants that may wait for a sandbox; further ones get 503."""
    memory_reserve: float
    """Share of the machine's memory that sandboxes never get."""
    drain_timeout: float
    head_timeout: float
    body_timeout: float
    keep_alive: float
    max_head: int
    max_connections: int
    max_programs: int
    """Bytes of programs that a proxy worker holds while they come or wait for their sandbox."""
    resolvers: list[str] = []
    """`host:port` of the resolvers that egress asks, `[host]:port` for IPv6."""
    own_names: list[str] = []
    """Names of this machine, in lower case, which egress passes to no resolver."""
    egress_rate: float = 100
    """Questions a second that a tenant may ask the resolver."""
    spool: int = 1 << 27
    """Bytes of output that wait for the log bus at most, of all sandboxes."""
    keep: int = 64 << 20
    """Bytes of records that are kept of a tenant, by the local log bus."""
    keep_all: int = 10 << 30
    keep_for: float = 7 * 86400
    kafka: Kafka | None = None
    """The Kafka that is the log bus; None: the local one is."""
    stdout: bool = False
    """Whether every record is printed too."""
    otlp: Otlp | None = None
    """Where records go besides the log bus; None: nowhere."""
    request_records: int = 100
    """Calls a second of a tenant, in each worker, that get records of their own; the rest is summed. 0: neither."""
    modules: Modules = Modules()
    defaults: Limits
    """Limits of tenants that set none."""

    @property
    def tag(self) -> str:
        """The instance as one hexadecimal digit."""
        return f"{self.instance:x}"

    @property
    def interface_prefix(self) -> str:
        """Prefix of the host's side of every sandbox's veth pair; rules match only this."""
        return f"sp{self.tag}-"

    @property
    def nft_table(self) -> str:
        """Name of the instance's `inet` table."""
        return f"sandpost_{self.tag}"

    @property
    def cgroup_parent(self) -> str:
        """Name of the group above all tenants, directly below each hierarchy's root (or our delegation)."""
        return f"sandpost-{self.tag}"

    def command(self, engine: EngineName) -> str:
        """Return the program of an engine; empty: not there."""
        return self.runsc_command if engine == "runsc" else self.runtime_command

    @property
    def slots(self) -> int:
        """How many sandboxes the address block has room for, a /31 each; the last /31 holds `platform_address`."""
        return IPv4Network(self.sandbox_network).num_addresses // 2 - 1

    @property
    def platform_address(self) -> IPv4Address:
        """The one address of the host that a sandbox reaches: its resolver. It is on the host's loopback interface."""
        return IPv4Network(self.sandbox_network).broadcast_address

    @property
    def resolver_addresses(self) -> list[tuple[IPv4Address | IPv6Address, int]]:
        """`resolvers` as addresses and ports."""
        parted = (text.rpartition(":") for text in self.resolvers)
        return [(ip_address(host.strip("[]")), int(port)) for host, _, port in parted]

    def slot_addresses(self, slot: int) -> tuple[IPv4Address, IPv4Address]:
        """Return the host's and the sandbox's address of `slot`."""
        base = IPv4Network(self.sandbox_network).network_address + 2 * slot
        return base, base + 1

    def slot_uid(self, slot: int) -> int:
        """Return the first host uid of `slot`'s range."""
        return self.sandbox_uids + slot * IDS_PER_SANDBOX

    def path(self, *parts: str) -> str:
        """Return a path below the run folder."""
        return os.path.join(self.run_dir, *parts)

    def state(self, *parts: str) -> str:
        """Return a path below the state folder."""
        return os.path.join(self.state_dir, *parts)

    @property
    def controller_socket(self) -> str:
        """Where proxies, api, collector and egress find the controller."""
        return self.path("controller.sock")

    @property
    def resolv_conf(self) -> str:
        """What sandboxes have as `/etc/resolv.conf`."""
        return self.path("resolv.conf")

    @property
    def supervisor_socket(self) -> str:
        """Where children and the operator's command line find the supervisor."""
        return self.path("supervisor.sock")

    @property
    def records_socket(self) -> str:
        """Where the parts send their own records, for the collector; the supervisor binds it."""
        return self.path("records.sock")

    @property
    def api_socket(self) -> str:
        """Where the api takes HTTP, from proxies and from the operator's command line."""
        return self.path("api", "api.sock")

    @property
    def store_path(self) -> str:
        """The SQLite file; the api writes it, others read."""
        return self.state("store", "sandpost.db")

    @property
    def code_dir(self) -> str:
        """Programs kept by hash, a folder a tenant; proxies own it."""
        return self.state("code")

    @property
    def logs_dir(self) -> str:
        """The local log bus: a folder a stream; the collector owns it."""
        return self.state("logs")

    def kafka_dir(self, part: str) -> str:
        """Copies of what `part` needs to be let in by the Kafka, for nobody else to read: `KAFKA_FILES`."""
        return self.path("kafka", part)

    @property
    def otlp_dir(self) -> str:
        """Copies of what the collector needs to be let in by the receiver of OTLP, for nobody else to read."""
        return self.path("otlp")

    @property
    def modules_dir(self) -> str:
        """The store of npm and PyPI packages; root owns the folder itself."""
        return self.state("modules")

    @property
    def modules_lock(self) -> str:
        """File whose lock is held by whoever works on the modules."""
        return self.state("modules", "lock")

    @property
    def modules_ready(self) -> str:
        """What sandboxes see of it: `npm/<name>/<version>/`, `pypi/<name>/<version>/`, each whole since it is there.

        The api owns it.
        """
        return self.state("modules", "ready")

    @property
    def spool_dir(self) -> str:
        """Output that is not all on the log bus yet, a file a stream; the collector owns it."""
        return self.path("spool")

    @property
    def metrics_dir(self) -> str:
        """Each process writes its figures here once a second, `<part>-<index>.json`, replaced atomically."""
        return self.path("metrics")

    @property
    def rootfs(self) -> str:
        """The root of the image in use."""
        return os.path.join(self.image_dir, self.image, "rootfs")


def load(path: str) -> Host:
    """Read the host file at `path`."""
    with open(path, "rb") as file:
        return msgspec.json.decode(file.read(), type=Host)

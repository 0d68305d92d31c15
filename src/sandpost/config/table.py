"""Every setting there is: its name, kind, default, bounds and what it does. All else follows from this table.

A dotted name `limits.blocked_after` is `[limits] blocked_after` in TOML, `SANDPOST_LIMITS_BLOCKED_AFTER` in the
environment and `--limits-blocked-after` among the flags.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from sandpost.config import ids, kinds
from sandpost.config.kinds import Kind
from sandpost.model.bounds import BOUNDS
from sandpost.model.engines import ENGINES
from sandpost.model.limits import Limits

KiB, MiB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting. `low` and `high` bound it, inclusive; `live`: SIGHUP takes it up; a `secret` has no flag."""

    name: str
    kind: Kind
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    zero: bool = False
    """0 is allowed below `low` and switches it off (or chooses by the machine, where `help` says so)."""
    live: bool = False
    secret: bool = False

    @property
    def environment(self) -> str:
        """Its name in the environment."""
        return "SANDPOST_" + self.name.upper().replace(".", "_")

    @property
    def flag(self) -> str:
        """Its name among the flags."""
        return "--" + self.name.replace(".", "-").replace("_", "-")


_KINDS = {"size": kinds.SIZE, "duration": kinds.DURATION, "count": kinds.COUNT, "share": kinds.NUMBER}


def _limit(name: str, help_: str) -> Setting:
    bound = BOUNDS[name]
    return Setting(
        name=f"limits.{name}",
        kind=_KINDS[bound.kind],
        default=getattr(_LIMITS, name),
        help=help_,
        low=bound.least,
        high=bound.greatest,
        zero=bound.off,
        live=True,
    )


_LIMITS = Limits()


def _otlp() -> tuple[Setting, ...]:
    """Return where records go besides the log bus."""
    return (
        Setting(
            name="logs.otlp.endpoint",
            kind=kinds.URL,
            default="",
            help="where records go by OTLP/HTTP too, with its path: http://127.0.0.1:4318/v1/logs; none: nowhere",
        ),
        Setting(
            name="logs.otlp.headers_file",
            kind=kinds.PATH,
            default="",
            help="a file of mode 0600 with headers of each request, such as keys: a line each, `name: value`",
        ),
        Setting(
            name="logs.otlp.ca",
            kind=kinds.PATH,
            default="",
            help="authorities that the receiver's certificate is of, PEM; none: those that Python brings",
        ),
        Setting(
            name="logs.otlp.tenants",
            kind=kinds.SWITCH,
            default=True,
            help="send tenants' streams; false: the platform's own alone",
        ),
    )


def _kafka() -> tuple[Setting, ...]:
    """Return how the log bus `kafka` is reached."""
    path, switch, text = kinds.PATH, kinds.SWITCH, kinds.TEXT
    return (
        Setting(
            name="logs.kafka.brokers",
            kind=kinds.BROKERS,
            default=[],
            help="host:port of brokers; one that answers names the others",
        ),
        Setting(
            name="logs.kafka.ports",
            kind=kinds.PORTS,
            default=[],
            help="further TCP ports at which brokers say they are; nothing else is connected to",
        ),
        Setting(
            name="logs.kafka.topic",
            kind=kinds.TOPIC,
            default="sandpost",
            help="the topic of all records; its index is in the topic of that name with `.index`",
        ),
        Setting(name="logs.kafka.create", kind=switch, default=True, help="make both topics where they are missing"),
        Setting(
            name="logs.kafka.partitions",
            kind=kinds.COUNT,
            default=16,
            low=1,
            high=1000,
            help="partitions of each topic that tenants are spread over; never changed for topics that are used",
        ),
        Setting(
            name="logs.kafka.replicas",
            kind=kinds.COUNT,
            default=0,
            high=15,
            help="replicas that a topic gets when it is made; 0: as many as brokers, 3 at most",
        ),
        Setting(
            name="logs.kafka.compression",
            kind=kinds.choice("none", "gzip", "lz4", "zstd"),
            default="lz4",
            help="how records are compressed: none, gzip, lz4, zstd",
        ),
        Setting(name="logs.kafka.tls", kind=switch, default=False, help="speak TLS with the brokers"),
        Setting(
            name="logs.kafka.tls_ca",
            kind=path,
            default="",
            help="authorities that the brokers' certificates are of, PEM; none: those of the machine",
        ),
        Setting(name="logs.kafka.tls_cert", kind=path, default="", help="our certificate chain for the brokers, PEM"),
        Setting(name="logs.kafka.tls_key", kind=path, default="", help="its private key, PEM, without a passphrase"),
        Setting(
            name="logs.kafka.sasl",
            kind=kinds.choice("none", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
            default="none",
            help="how we say who we are: none, PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
        ),
        Setting(name="logs.kafka.user", kind=text, default="", help="the user of SASL"),
        Setting(
            name="logs.kafka.password_file",
            kind=path,
            default="",
            help="a file of mode 0600 that holds the user's password",
        ),
    )


def _modules() -> tuple[Setting, ...]:
    """Return where modules of npm and PyPI come from, and how much of them there may be."""
    return (
        Setting(
            name="modules.npm",
            kind=kinds.URL,
            default="",
            live=True,
            help="URL of the npm registry that `sandpost module add` installs from; none: npm modules cannot be added",
        ),
        Setting(
            name="modules.pypi",
            kind=kinds.URL,
            default="",
            live=True,
            help="URL of the simple index that Python modules come from, with its path; none: they cannot be added",
        ),
        Setting(
            name="modules.hosts",
            kind=kinds.HOSTS,
            default=[],
            live=True,
            help="further hosts that an installation fetches from, such as where an index keeps its files; port 443 "
            "where none is said",
        ),
        Setting(
            name="modules.size",
            kind=kinds.SIZE,
            default=256 * MiB,
            low=1 * MiB,
            high=1 << 40,
            live=True,
            help="bytes of one module with all that it depends on",
        ),
        Setting(
            name="modules.files",
            kind=kinds.COUNT,
            default=50_000,
            low=100,
            high=1_000_000,
            live=True,
            help="files and folders of one module",
        ),
        Setting(
            name="modules.keep",
            kind=kinds.SIZE,
            default=10 << 30,
            low=1 * MiB,
            high=1 << 50,
            live=True,
            help="bytes of all modules together",
        ),
        Setting(
            name="modules.count",
            kind=kinds.COUNT,
            default=1000,
            low=1,
            high=100_000,
            live=True,
            help="modules that there may be, those that wait and those that failed among them",
        ),
        Setting(
            name="modules.memory",
            kind=kinds.SIZE,
            default=1 << 30,
            low=128 * MiB,
            high=1 << 40,
            live=True,
            help="memory of an installation, with the files that it makes",
        ),
        Setting(
            name="modules.timeout",
            kind=kinds.DURATION,
            default=600.0,
            low=5,
            high=3600,
            live=True,
            help="time for one installation",
        ),
        Setting(
            name="modules.parallel",
            kind=kinds.COUNT,
            default=1,
            low=1,
            high=8,
            live=True,
            help="installations at the same time",
        ),
    )


_PLACE = (
    Setting(name="listen", kind=kinds.ADDRESS, default="127.0.0.1:8721", help="address that clients call"),
    Setting(name="listen.tls_cert", kind=kinds.PATH, default="", live=True, help="TLS certificate chain, PEM"),
    Setting(name="listen.tls_key", kind=kinds.PATH, default="", live=True, help="its private key, PEM"),
    Setting(
        name="listen.insecure",
        kind=kinds.SWITCH,
        default=False,
        help="allow an address beyond loopback without TLS and without trusted_proxies",
    ),
    Setting(
        name="trusted_proxies",
        kind=kinds.NETWORKS,
        default=[],
        live=True,
        help="networks from which alone X-Forwarded-* is taken",
    ),
    Setting(name="metrics.listen", kind=kinds.ADDRESS, default="", help="address of the Prometheus listener"),
    Setting(name="state_dir", kind=kinds.PATH, default="/var/lib/sandpost", help="durable state of this installation"),
    Setting(name="run_dir", kind=kinds.PATH, default="/run/sandpost", help="where installations claim their place"),
    Setting(name="image_dir", kind=kinds.PATH, default="/var/lib/sandpost/image", help="built images, shared"),
    Setting(
        name="image.coreclr",
        kind=kinds.SWITCH,
        default=False,
        help="sandboxes have .NET's CoreCLR beside Mono, for C# that wants it (docs/languages.md)",
    ),
    Setting(
        name="instance", kind=kinds.INSTANCE, default=None, help="which sixteenth of the machine; auto: a free one"
    ),
    Setting(
        name="network.block",
        kind=kinds.BLOCK,
        default="198.18.0.0/15",
        help="addresses of sandboxes; an installation has a sixteenth",
    ),
    Setting(
        name="uids.base",
        kind=kinds.COUNT,
        default=0x70000000,
        low=ids.LEAST,
        high=ids.LAST,
        # systemd's UIDS-GIDS.md lists 1879048192..2147483647 as unused.
        help="first of the user ids of all installations",
    ),
    Setting(
        name="engine.runtime",
        kind=kinds.choice(*ENGINES),
        default="runc",
        help="what makes sandboxes: runc, or runsc (gVisor); `sandpost tenant set T --engine` for one tenant",
    ),
    Setting(
        name="oci.runtime",
        kind=kinds.TEXT,
        default="runc",
        help="the program runc, a path or a name on PATH; `runc` is the one that `scripts/install --build-runc` built, "
        "where it did",
    ),
    Setting(
        name="oci.runsc",
        kind=kinds.TEXT,
        default="runsc",
        live=True,
        help="the program runsc, a path or a name; `runsc` is the one of `scripts/install --gvisor`, where there is",
    ),
)

_HOST = (
    Setting(name="workers", kind=kinds.COUNT, default=0, high=64, help="proxy processes; 0: one a core"),
    Setting(name="pool_size", kind=kinds.COUNT, default=8, high=1000, live=True, help="sandboxes started in advance"),
    Setting(
        name="parallel_starts",
        kind=kinds.COUNT,
        default=0,
        high=64,
        live=True,
        help="sandboxes that start at the same time; 0: one more than cores",
    ),
    Setting(
        name="queue",
        kind=kinds.COUNT,
        default=128,
        low=1,
        high=100_000,
        live=True,
        help="first requests of new tenants that may wait for a sandbox",
    ),
    Setting(
        name="memory_reserve",
        kind=kinds.SHARE,
        default=0.1,
        low=0.01,
        high=0.9,
        live=True,
        help="share of the machine's memory that sandboxes never get",
    ),
    Setting(
        name="drain_timeout",
        kind=kinds.DURATION,
        default=30.0,
        high=3600,
        live=True,
        help="how long a stop or renewal waits for calls under way",
    ),
    Setting(
        name="http.head_timeout",
        kind=kinds.DURATION,
        default=10.0,
        low=0.1,
        high=600,
        live=True,
        help="time for a request's head to arrive",
    ),
    Setting(
        name="http.body_timeout",
        kind=kinds.DURATION,
        default=30.0,
        low=0.1,
        high=3600,
        live=True,
        help="longest pause of a client that sends a body or reads an answer",
    ),
    Setting(
        name="http.keep_alive",
        kind=kinds.DURATION,
        default=75.0,
        low=0.1,
        high=3600,
        live=True,
        help="how long a connection may be idle between requests",
    ),
    Setting(
        name="http.max_head",
        kind=kinds.SIZE,
        default=32 * KiB,
        low=1 * KiB,
        high=1 * MiB,
        live=True,
        help="bytes of a request's head",
    ),
    Setting(
        name="http.max_connections",
        kind=kinds.COUNT,
        default=10_000,
        low=1,
        high=500_000,
        live=True,
        help="connections of clients that one worker holds",
    ),
    Setting(
        name="http.max_programs",
        kind=kinds.SIZE,
        default=128 * MiB,
        low=4 * MiB,
        high=1 << 40,
        live=True,
        help="bytes of programs that one worker holds while they come or wait for their sandbox",
    ),
    Setting(
        name="egress.resolvers",
        kind=kinds.RESOLVERS,
        default=[],
        live=True,
        help="resolvers that sandboxes' questions are passed to; none: those of /etc/resolv.conf",
    ),
    Setting(
        name="egress.rate",
        kind=kinds.COUNT,
        default=100,
        low=1,
        high=100_000,
        live=True,
        help="questions for names that a tenant may ask a second, twice as many at once",
    ),
    Setting(
        name="logs.spool",
        kind=kinds.SIZE,
        default=128 * MiB,
        low=8 * MiB,
        high=1 << 40,
        live=True,
        help="bytes of output, in memory below run_dir, that wait for the log bus while it cannot be written",
    ),
    Setting(
        name="logs.bus",
        kind=kinds.choice("local", "kafka"),
        default="local",
        help="where records are kept: `local`, in files below state_dir, or `kafka`",
    ),
    Setting(
        name="logs.keep",
        kind=kinds.SIZE,
        default=64 * MiB,
        low=1 * MiB,
        high=1 << 40,
        live=True,
        help="bytes of records that are kept of each tenant; `local` alone",
    ),
    Setting(
        name="logs.keep_all",
        kind=kinds.SIZE,
        default=10 << 30,
        low=16 * MiB,
        high=1 << 50,
        live=True,
        help="bytes of records of all tenants together; who holds most gives first; `local` alone",
    ),
    Setting(
        name="logs.keep_for",
        kind=kinds.DURATION,
        default=7 * 86400.0,
        low=60,
        high=3650 * 86400,
        live=True,
        help="how long records are kept; of `kafka` what a topic gets when it is made",
    ),
    Setting(
        name="logs.stdout",
        kind=kinds.SWITCH,
        default=False,
        help="print every record too, a line of JSON each on stdout, for journald or Docker",
    ),
    *_kafka(),
    *_otlp(),
    *_modules(),
    Setting(
        name="logs.requests",
        kind=kinds.COUNT,
        default=100,
        low=0,
        high=1_000_000,
        live=True,
        help="calls a second of a tenant, in each worker, with records of their own; others are summed; 0: neither",
    ),
    Setting(
        name="admin_key",
        kind=kinds.KEY,
        default="",
        secret=True,
        help="the operator's key; without one a key is made at the first start",
    ),
    Setting(
        name="admin_key_file", kind=kinds.PATH, default="", help="a file of mode 0600 that holds the operator's key"
    ),
)

_OF_TENANTS = (
    _limit("memory", "memory of all sandboxes of a tenant"),
    _limit("memory_guaranteed", "below this no sandbox is evicted for memory"),
    _limit("cpu", "cores"),
    _limit("pids", "processes and threads"),
    _limit("tmp", "bytes of /tmp"),
    _limit("tmp_inodes", "files and folders in /tmp"),
    _limit("files", "open files of a process"),
    _limit("code", "bytes of a program"),
    _limit("body", "bytes of a request's body; 0: no limit"),
    _limit("calls", "calls at once"),
    _limit("rate", "calls begun a second; 0: no limit"),
    _limit("deadline", "time for a call's complete answer"),
    _limit("blocked_after", "how long a busy loop may not answer its probe"),
    _limit("cpu_seconds", "CPU time that a call may use; 0: no limit"),
    _limit("upgrade_idle", "how long an upgraded connection may be silent"),
    _limit("idle", "a sandbox without a call for so long is ended; 0: never"),
    _limit("age", "a sandbox this old is replaced; 0: never"),
    _limit("count", "a sandbox that served so many calls is replaced; 0: never"),
    _limit("output", "bytes of output a second that are kept; 0: all"),
    _limit("bandwidth_in", "bytes a second from the internet; 0: no limit"),
    _limit("bandwidth_out", "bytes a second to the internet; 0: no limit"),
    _limit("connections", "connections to the internet at once; 0: no limit"),
    _limit("connection_rate", "connections to the internet begun a second; 0: no limit"),
    _limit("programs", "programs that stay loaded in a sandbox"),
    _limit("stored_code", "bytes of programs that are kept by hash"),
    _limit("per_request_at_once", "sandboxes at once of a per_request tenant"),
)

SETTINGS: tuple[Setting, ...] = (*_PLACE, *_HOST, *_OF_TENANTS)
BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}
DEFAULTS: dict[str, Any] = {setting.name: setting.default for setting in SETTINGS}
ALIASES: dict[str, str] = {"listen.address": "listen"}
"""In TOML `listen` cannot be a value and a table at once; with `[listen]` the address is `listen.address`."""
LIMIT_NAMES: tuple[str, ...] = tuple(field.name for field in msgspec.structs.fields(Limits))

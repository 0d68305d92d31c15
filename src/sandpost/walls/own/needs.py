"""What each unprivileged part needs of the kernel and of the files: everything else is closed to it. Pure.

A further part has one function here, and its line in `_PARTS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sandpost.model.host import SANDBOX_PORT, Host
from sandpost.model.messages import Part
from sandpost.walls.own.calls import TCP, TCP6, UDP, UDP6, UNIX
from sandpost.walls.seccomp.rules import Way

SYSTEM = (
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/ssl",
    "/dev/null",
    "/dev/urandom",
)
"""What Python and libc read while they run: libraries, the zone of times, OpenSSL's settings, two devices."""

NAMES = ("/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf")
"""What libc reads to find the address of a name."""
_DNS = 53

_THREADS = 64
"""Threads that a process of ours may have: an event loop's pool has at most 32, besides a few of its own."""
_AT_ONCE = 2
"""Generations of a part that run side by side during a renewal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """One part's needs. Paths are folders, with all below, and files; what is not there is left out."""

    read: tuple[str, ...]
    write: tuple[str, ...]
    """Folders in which it makes, changes and removes files; nothing that lies in them can be run."""
    sockets: tuple[Way, ...]
    """Families, types and protocols of the sockets that it makes itself."""
    serves: bool
    """Whether others connect to it."""
    splices: bool = False
    """Whether it moves bytes from FIFOs to files."""
    watches: bool = False
    """Whether the kernel is to tell it of changes to files that it may read."""
    connect: tuple[int, ...] | None
    """TCP ports, on any address, that it connects to; None: any."""
    bind: tuple[int, ...] | None
    """TCP ports that it binds itself; those that are handed to it are bound already. None: any."""
    tasks: int
    """Threads that all processes of its user may have together."""


def of(part: Part, host: Host, program: Sequence[str]) -> Needs:
    """Return what `part` needs, whose program is read from the folders `program`. `KeyError` for a part of root's."""
    return _PARTS[part](host, (*program, *SYSTEM))


def _proxy(host: Host, system: tuple[str, ...]) -> Needs:
    return Needs(
        # The store is the api's to write.
        read=(*system, host.run_dir, host.state("store")),
        write=(host.code_dir, host.metrics_dir, host.path("tables")),
        sockets=(*UNIX, *TCP),
        serves=True,
        connect=(SANDBOX_PORT,),
        bind=(),
        tasks=_THREADS * host.workers * _AT_ONCE,
    )


def _api(host: Host, system: tuple[str, ...]) -> Needs:
    kafka = host.kafka is not None
    return Needs(
        # The bus is the collector's to write.
        read=(*system, host.run_dir, *(NAMES if kafka else (host.logs_dir,))),
        write=(host.state("store"), host.modules_dir, host.metrics_dir, host.path("api")),
        sockets=(*UNIX, *TCP, *TCP6, *((*UDP, *UDP6) if kafka else ())),
        serves=True,
        watches=not kafka,
        # It has modules installed as any caller has programs run.
        connect=(*_brokers(host), host.listen_port),
        bind=(int(host.metrics_listen.rpartition(":")[2]),) if host.metrics_listen else (),
        tasks=_THREADS * _AT_ONCE,
    )


def _collector(host: Host, system: tuple[str, ...]) -> Needs:
    kafka = host.kafka is not None
    goes_out = kafka or host.otlp is not None
    return Needs(
        read=(*system, host.run_dir, *(NAMES if goes_out else ())),
        write=(*(() if kafka else (host.logs_dir,)), host.spool_dir, host.metrics_dir),
        sockets=(*UNIX, *((*TCP, *UDP, *TCP6, *UDP6) if goes_out else ())),
        serves=False,
        splices=True,
        connect=tuple({*_brokers(host), *((host.otlp.port, _DNS) if host.otlp is not None else ())}),
        bind=(),
        tasks=_THREADS * _AT_ONCE,
    )


def _brokers(host: Host) -> tuple[int, ...]:
    """Return the TCP ports of the log bus, and that of resolvers, which long answers come by."""
    return () if host.kafka is None else (*host.kafka.ports, _DNS)


def _egress(host: Host, system: tuple[str, ...]) -> Needs:
    return Needs(
        read=(*system, host.run_dir),
        write=(host.metrics_dir,),
        # Sandboxes have no IPv6, the host's resolvers may.
        sockets=(*UNIX, *TCP, *UDP, *TCP6, *UDP6),
        serves=True,
        # Where tenants want to go, as the gate allows.
        connect=None,
        bind=(),
        tasks=_THREADS * _AT_ONCE,
    )


_PARTS: Mapping[Part, Callable[[Host, tuple[str, ...]], Needs]] = {
    "proxy": _proxy,
    "api": _api,
    "collector": _collector,
    "egress": _egress,
}
"""The parts that run unprivileged."""

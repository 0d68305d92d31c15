"""Lets the machine forward what sandboxes send and what comes back, and makes it a router for nobody else.

IPv4 forwarding is decided by the interface that a packet comes in by. Sandboxes' own interfaces forward from the
start (`namespaces`); answers come in by the uplinks, the interfaces of default routes. Where the machine forwards
everything already (`ip_forward` is 1) nothing is needed. Else the uplinks alone are switched on, and the firewall
drops what comes in by them for anybody but sandboxes (`Writer.guard`): neighbours of the machine could else reach
through it what only it can reach. What was switched on stands in `<run_dir>/uplinks`, so that the last installation
that ends can switch it off again.
"""

import contextlib
import os
from collections.abc import Iterable

from sandpost.kernel import files
from sandpost.logs.setup import get_logger
from sandpost.model.errors import EngineError
from sandpost.model.host import Host
from sandpost.network import namespaces

log = get_logger()

_CONF = "/proc/sys/net/ipv4/conf"
_ROUTES = "/proc/thread-self/net/route"
_NAME = "uplinks"
_UP = 0x1


def uplinks(routes: str) -> frozenset[str]:
    """Return the interfaces of the default routes in the text of `/proc/net/route` (proc(5)). Pure."""
    found = set()
    for line in routes.splitlines()[1:]:
        fields = line.split()
        if fields[1] == fields[7] == "00000000" and int(fields[3], 16) & _UP:
            found.add(fields[0])
    return frozenset(found)


def open_uplinks(host: Host) -> frozenset[str]:
    """Let answers in by every uplink; return those that forward for sandboxes alone and must be guarded.

    Called again from time to time: default routes come and go, and somebody may make the machine a router.
    Raises `EngineError`.
    """
    if _forwards("all"):
        return frozenset()
    switched = set(_switched(host.run_dir))
    with open(_ROUTES, encoding="ascii") as file:
        found = uplinks(file.read())
    others = _others(host)
    for name in found:
        if not _forwards(name):
            if name in switched:
                # Who writes `ip_forward` writes that of every interface, sandboxes' too.
                for own in namespaces.interfaces():
                    if own.startswith(host.interface_prefix):
                        _set(own, forward=True)
            # Noted first: whoever ends after a crash must know that it was us.
            switched.add(name)
            _note(host, switched)
            _set(name, forward=True)
            log.info("an uplink lets answers to sandboxes in, and forwards nothing else", interface=name)
        elif name in others and name not in switched:
            switched.add(name)
            _note(host, switched)
    return frozenset(switched)


def close_uplinks(host: Host) -> None:
    """Undo `open_uplinks` as far as no other installation of this machine needs it."""
    switched = set(_switched(host.run_dir))
    if not _forwards("all"):
        for name in switched - _others(host):
            with contextlib.suppress(EngineError):
                _set(name, forward=False)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(host.path(_NAME))


def _here(name: str) -> str:
    """Return how an interface is noted: the same name may be another one in another network namespace."""
    return f"{os.stat('/proc/thread-self/ns/net').st_ino}:{name}"


def _others(host: Host) -> set[str]:
    """Return what other installations have switched on."""
    root, own = os.path.split(host.run_dir)
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for place in os.listdir(root):
            if place != own:
                found.update(_switched(os.path.join(root, place)))
    return found


def _switched(run_dir: str) -> list[str]:
    with contextlib.suppress(OSError), open(os.path.join(run_dir, _NAME), encoding="ascii") as file:
        noted = (line.partition(":") for line in file.read().split())
        return [name for place, _, name in noted if _here(name) == f"{place}:{name}"]
    return []


def _note(host: Host, names: Iterable[str]) -> None:
    files.replace(host.path(_NAME), "\n".join(_here(name) for name in sorted(names)).encode(), 0o600)


def _forwards(name: str) -> bool:
    with contextlib.suppress(OSError), open(f"{_CONF}/{name}/forwarding", encoding="ascii") as file:
        return file.read().strip() == "1"
    return False


def _set(name: str, *, forward: bool) -> None:
    path = f"{_CONF}/{name}/forwarding"
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write("1" if forward else "0")
    except OSError as error:
        raise EngineError(
            f"the interface {name} cannot be made to pass answers to sandboxes: {error}: "
            f"`sysctl -w net.ipv4.conf.{name}.forwarding=1`, or in a container start it with that"
        ) from error

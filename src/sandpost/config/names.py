"""What this machine knows of names: its resolvers (resolv.conf(5)) and its own names (hosts(5))."""

import contextlib
import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address

MOST_RESOLVERS = 3
"""As many as the C library asks."""
MOST_NAMES = 1024
"""A machine has a few; files with a hundred thousand are lists of what to block."""
_MOST_BYTES = 1 << 20
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Names:
    """`resolvers` as `host:port`, in the order in which they are asked; `own` names in lower case."""

    resolvers: tuple[str, ...] = ()
    own: tuple[str, ...] = ()


NO_NAMES = Names()


def read(resolv_conf: str = "/etc/resolv.conf", hosts: str = "/etc/hosts") -> Names:
    """Look at the machine. What cannot be read is empty."""
    own = own_names(_text(hosts), socket.gethostname())
    return Names(resolvers(_text(resolv_conf)), own)


def resolvers(text: str) -> tuple[str, ...]:
    """Return the nameservers of a resolv.conf; those of an IPv6 scope are left out. Pure."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            with contextlib.suppress(ValueError):
                address = ip_address(words[1])
                if "%" not in words[1]:
                    found.append(f"[{address}]:53" if address.version == 6 else f"{address}:53")
    return tuple(dict.fromkeys(found))[:MOST_RESOLVERS]


def own_names(hosts: str, hostname: str) -> tuple[str, ...]:
    """Return the names in a hosts file that mean a place, and the machine's own. Pure.

    Lines for `0.0.0.0` block a name and name no machine.
    """
    found = [hostname]
    for line in hosts.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if address not in {"0.0.0.0", "::"}:
            found += names
    plain = (name.lower().removesuffix(".") for name in found)
    return tuple(dict.fromkeys(name for name in plain if _NAME.fullmatch(name)))[:MOST_NAMES]


def _text(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read(_MOST_BYTES)
    return ""

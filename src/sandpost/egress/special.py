"""Names that are answered here and never passed upstream. Pure.

They mean something on this machine or in its network alone, and an upstream resolver there might know it: names
without a dot, zones that RFC 6761, 6762, 7686, 8375 and ICANN (`.internal`) keep for private use, and names of
addresses that no sandbox may reach.
"""

from collections.abc import Collection
from ipaddress import IPv4Address

from sandpost.model.forbidden import why

_PRIVATE = frozenset(
    {"alt", "corp", "home", "internal", "intranet", "invalid", "lan", "local", "localdomain", "localhost", "onion"}
    | {"private"}
)
"""Last labels."""
_REVERSE = ".in-addr.arpa"
_OTHERS = (".ip6.arpa", ".home.arpa", ".ipv4only.arpa")


def why_local(name: str, own: Collection[str]) -> str | None:
    """Return why `name` (lower case, no final dot) is not passed upstream; None if it may be.

    `own` are names of this machine (`/etc/hosts`).
    """
    last = name.rpartition(".")[2]
    if last == name:
        return "a name without a dot belongs to no public zone"
    if last in _PRIVATE:
        return f"names below .{last} belong to no public zone"
    if name in own:
        return "this name belongs to the machine"
    if f".{name}".endswith(_OTHERS):
        return "this zone is not public, or of IPv6, which sandboxes do not have"
    if f".{name}".endswith(_REVERSE):
        return _reverse(name)
    return None


def _reverse(name: str) -> str | None:
    labels = name.removesuffix(_REVERSE[1:]).removesuffix(".").split(".")
    if len(labels) != 4 or not all(label.isdigit() and len(label) <= 3 and int(label) < 256 for label in labels):
        return "only whole public addresses have a name"
    reason = why(IPv4Address(".".join(str(int(label)) for label in reversed(labels))))
    return f"an address that no sandbox reaches ({reason})" if reason else None

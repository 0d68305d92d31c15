"""The addresses that no sandbox may reach, whoever its tenant is: one list, a reason a line.

The firewall, the resolver, the gate and the judging of allow-lists all read it. Everything else that is IPv4 unicast
is the public internet. Documentation blocks (RFC 5737) are on purpose not in it: nothing lives there. Sources:
IANA's special-purpose address registry, RFC 6890.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import NamedTuple


class Forbidden(NamedTuple):
    """A block and why no sandbox may reach it."""

    network: IPv4Network
    reason: str


FORBIDDEN = tuple(
    Forbidden(IPv4Network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "this host, which some systems take for loopback"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by carriers; also metadata of some clouds (100.100.100.200)"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "metadata of Azure"),
        ("169.254.0.0/16", "link-local, and metadata of most clouds (169.254.169.254)"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments, among them metadata of Oracle's cloud (192.0.0.192)"),
        ("192.31.196.0/24", "anycast of AS112, answered by the nearest network"),
        ("192.52.193.0/24", "relays of AMT, which pass packets on"),
        ("192.88.99.0/24", "relays of 6to4, which pass packets on"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "anycast of AS112, answered by the nearest network"),
        ("198.18.0.0/15", "benchmarking; where sandboxes live"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved, and broadcast"),
    )
)
"""In ascending order, none inside another."""


def why(address: IPv4Address) -> str | None:
    """Return the reason why no sandbox may reach `address`; None if it is public."""
    for network, reason in FORBIDDEN:
        if address in network:
            return reason
    return None


def why6(address: IPv6Address) -> str:
    """Return the reason why no sandbox may reach `address`: none may until IPv6 is walled like IPv4."""
    if address.ipv4_mapped is not None:
        return "an IPv4 address written as IPv6"
    return "IPv6, which sandboxes do not have"

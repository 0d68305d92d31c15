"""Whose address a request came from: X-Forwarded-* is believed from trusted proxies alone. Pure."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

NAMES = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"forwarded",
                   b"x-real-ip"})  # fmt: skip
"""Headers that say where a request came from; a stranger's are replaced with ours."""


class Trust:
    """The networks of `trusted_proxies`."""

    def __init__(self, cidrs: Iterable[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(cidr, strict=False) for cidr in cidrs]

    def believes(self, address: str) -> bool:
        """Whether the peer at `address` may say where a request came from."""
        if not self._networks:
            return False
        try:
            peer = ip_address(address)
        except ValueError:
            return False
        if isinstance(peer, IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in network for network in self._networks)


def headers(
    given: Iterable[tuple[bytes, bytes]], *, believed: bool, peer: str, secure: bool, host: bytes
) -> list[tuple[bytes, bytes]]:
    """Return the X-Forwarded-* headers to pass on: the chain with our peer added, or ours alone."""
    peer_bytes = peer.encode("ascii", "replace")
    if not believed:
        return [
            (b"x-forwarded-for", peer_bytes),
            (b"x-forwarded-proto", b"https" if secure else b"http"),
            (b"x-forwarded-host", host),
        ]
    said: dict[bytes, bytes] = {}
    for name, value in given:
        if name in NAMES:
            said[name] = said[name] + b", " + value if name in said else value
    chain = said.get(b"x-forwarded-for")
    return [
        (b"x-forwarded-for", peer_bytes if chain is None else chain + b", " + peer_bytes),
        (b"x-forwarded-proto", said.get(b"x-forwarded-proto", b"https" if secure else b"http")),
        (b"x-forwarded-host", said.get(b"x-forwarded-host", host)),
    ]

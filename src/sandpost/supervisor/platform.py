"""The one address of the host that sandboxes reach, and what listens there: made once, handed down to egress.

As with the public listening sockets no death or renewal of egress loses what is queued.
"""

import contextlib
import errno
import socket

from sandpost.model.errors import HostUnfit
from sandpost.model.host import PLATFORM_PORTS, Host
from sandpost.network import netlink

_BACKLOG = 4096
_RCVBUFFORCE = 33
"""SO_RCVBUFFORCE (asm-generic/socket.h), for which Python has no name."""
_QUEUE = 4 << 20
"""Bytes of datagrams that wait: one tenant's flood must not push others' questions out before they are looked at."""


def open_sockets(host: Host) -> list[socket.socket]:
    """Put the address on the loopback interface, and listen there; `HostUnfit` if it cannot be."""
    address = host.platform_address
    with netlink.Netlink() as line:
        try:
            line.run(netlink.loopback_address(address))
        except OSError as error:
            # A supervisor that was killed has left it.
            if error.errno != errno.EEXIST:
                raise HostUnfit(f"the address {address} cannot be put on the loopback interface: {error}") from None
    made: list[socket.socket] = []
    try:
        for protocol, port in PLATFORM_PORTS:
            made.append(_listen(str(address), protocol, port))
    except HostUnfit:
        for sock in made:
            sock.close()
        raise
    return made


def remove_address(host: Host) -> None:
    """Take the address away, if it is there."""
    with netlink.Netlink() as line, contextlib.suppress(OSError):
        line.run(netlink.loopback_address(host.platform_address, remove=True))


def _listen(address: str, protocol: str, port: int) -> socket.socket:
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    sock = socket.socket(socket.AF_INET, kind)
    try:
        sock.setblocking(False)
        if protocol == "udp":
            # Beyond net.core.rmem_max for root with CAP_NET_ADMIN; else as much as that allows.
            with contextlib.suppress(PermissionError):
                sock.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _QUEUE)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        if protocol == "tcp":
            sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise HostUnfit(
            f"sandboxes' resolver cannot listen on {address}:{port} ({protocol}): {error.strerror}. If a resolver of "
            f"this host takes port {port} of all addresses (`ss -lnp 'sport = :{port}'`), bind it to its own ones"
        ) from None
    return sock

"""The public listening sockets: one a proxy worker on one address, made once and handed down."""

import socket

from sandpost.config.kinds import split_address
from sandpost.config.machine import port_error
from sandpost.model.errors import HostUnfit
from sandpost.model.host import Host

_BACKLOG = 4096


def check_port(host: Host) -> None:
    """Raise `HostUnfit` if somebody else listens there, or where metrics are to be served.

    Bound once without SO_REUSEPORT, with which one would share the port with a stranger of the same user unawares.
    """
    if message := port_error((host.listen_host, host.listen_port)):
        raise HostUnfit(message)
    if host.metrics_listen and (message := port_error(split_address(host.metrics_listen), "metrics.listen")):
        raise HostUnfit(message)


def numeric(address: str) -> str:
    """Return `address`, host and port, with an IPv4 address for a name: the part that binds it has nobody to ask.

    A name that means nothing now stays one; its part says so.
    """
    name, port = split_address(address)
    if ":" in name:
        return address
    try:
        return f"{socket.gethostbyname(name)}:{port}"
    except OSError:
        return address


def make(host: Host) -> socket.socket:
    """Return a new listening socket of the installation's address; `HostUnfit` if it cannot be."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            host.listen_host, host.listen_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.setblocking(False)
            sock.bind(where)
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise HostUnfit(f"cannot listen on {host.listen_host}:{host.listen_port}: {error.strerror or error}") from None
    return sock

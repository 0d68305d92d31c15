"""What the command line says to a supervisor: one message, and its answer or its end."""

import os
import socket
import time

import msgspec

from sandpost.cli.exits import CannotReach, NotRunning
from sandpost.ipc.channel import MAX_PACKET
from sandpost.model.host import Host
from sandpost.model.messages import FromSupervisor, Hello, Restart, Restarted, Stop

GRACE = 60.0
"""Seconds beyond `drain_timeout` that a stop or a renewal may take."""


def stop(host: Host) -> None:
    """Stop everything; returns when all has ended."""
    deadline = time.monotonic() + host.drain_timeout + GRACE
    with _connect(host) as sock:
        _send(sock, Stop())
        while _receive(sock, deadline, "stopped") is not None:
            pass


def restart(host: Host) -> Restarted:
    """Renew every process, one after another; each may take the drain's time."""
    deadline = time.monotonic() + (host.workers + 4) * (host.drain_timeout + GRACE)
    with _connect(host) as sock:
        _send(sock, Restart())
        while True:
            message = _receive(sock, deadline, "restarted")
            if message is None:
                raise CannotReach("the supervisor ended while it restarted: `sandpost status` and its log say more")
            if isinstance(message, Restarted):
                return message


def _connect(host: Host) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(host.supervisor_socket)
        _send(sock, Hello(part="cli", pid=os.getpid()))
    except PermissionError as error:
        sock.close()
        raise CannotReach("only root may stop or restart: use sudo") from error
    except OSError as error:
        sock.close()
        raise NotRunning(f"the installation of {host.state_dir} is not running: start it with scripts/serve") from error
    return sock


def _send(sock: socket.socket, message: msgspec.Struct) -> None:
    sock.sendall(msgspec.msgpack.encode(message))


def _receive(sock: socket.socket, deadline: float, what: str) -> FromSupervisor | None:
    """Return the next message; None at the connection's end."""
    left = deadline - time.monotonic()
    try:
        sock.settimeout(max(0.001, left))
        packet = sock.recv(MAX_PACKET)
    except TimeoutError as error:
        raise CannotReach(f"not {what} in time: it goes on; look at `sandpost status` and the log") from error
    except ConnectionError:
        return None
    if not packet:
        return None
    message: FromSupervisor = msgspec.msgpack.decode(packet, type=FromSupervisor)
    return message

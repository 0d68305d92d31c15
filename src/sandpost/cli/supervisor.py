"""What the command line says to a supervisor: one message, and its answer."""

import contextlib
import os
import socket
import time

import msgspec

from sandpost.cli import place
from sandpost.cli.exits import CannotReach, NotEnded
from sandpost.config import claims
from sandpost.ipc.channel import MAX_PACKET
from sandpost.model.host import Host
from sandpost.model.messages import FromSupervisor, Hello, Restart, Restarted, Stop, Stopped

_ROOT_ONLY = "only root may stop or restart: use sudo"
GRACE = 60.0
"""Seconds beyond `drain_timeout` that a stop or a renewal may take."""


def stop(host: Host) -> None:
    """Stop everything; returns when nothing is left, else raises `NotEnded` or `CannotReach`."""
    deadline = time.monotonic() + host.drain_timeout + GRACE
    with _connect(host) as sock:
        _send(sock, Stop())
        while (message := _receive(sock, deadline, "stopped")) is not None:
            if isinstance(message, Stopped):
                if message.error:
                    raise NotEnded(f"the supervisor ended, but something is left: {message.error}")
                return
    # Killed meanwhile, or of a release that gave no last word: what it gives back last tells which.
    if claims.find(os.path.dirname(host.run_dir), host.state_dir) is not None:
        raise NotEnded(
            f"the supervisor ended and does not say that all has ended: {host.state('serve.log')}, or wherever `serve` "
            "wrote, says why; start it again with scripts/serve, then `sandpost stop`"
        )


def restart(host: Host) -> Restarted:
    """Renew every process, one after another; each may take the drain's time."""
    deadline = time.monotonic() + (host.workers + 4) * (host.drain_timeout + GRACE)
    with _connect(host) as sock:
        _send(sock, Restart())
        while True:
            message = _receive(sock, deadline, "restarted")
            if message is None or isinstance(message, Stopped):
                raise CannotReach("the supervisor ended while it restarted: `sandpost status` and its log say more")
            if isinstance(message, Restarted):
                return message


def _connect(host: Host) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(host.supervisor_socket)
    except PermissionError as error:
        sock.close()
        raise CannotReach(_ROOT_ONLY) from error
    except OSError as error:
        sock.close()
        raise place.absence(host) from error
    if os.geteuid() != 0:
        # Told here: the supervisor sends everybody else away without a word.
        sock.close()
        raise CannotReach(_ROOT_ONLY)
    _send(sock, Hello(part="cli", pid=os.getpid()))
    return sock


def _send(sock: socket.socket, message: msgspec.Struct) -> None:
    # Who is gone is found gone by the next receive.
    with contextlib.suppress(ConnectionError):
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
    try:
        message: FromSupervisor = msgspec.msgpack.decode(packet, type=FromSupervisor)
    except msgspec.DecodeError as error:
        raise CannotReach("the supervisor is of another release: use the `sandpost` that started it") from error
    return message

"""Idle keep-alive connections pass from a worker that retires to another one, as descriptors (SCM_RIGHTS).

Each worker listens at `<run_dir>/tables/proxy-<index>.sock`; a successor replaces its predecessor's socket by a
rename, so whoever connects reaches the newest. A giver keeps what was not acknowledged and serves it on.
"""

import os
import socket
from collections.abc import Callable, Sequence

import msgspec

from sandpost.ipc import Channel, Listener
from sandpost.logs.setup import get_logger
from sandpost.model.host import Host

log = get_logger()

BATCH = 32


class Passed(msgspec.Struct, frozen=True, tag=True):
    """Connections are attached: idle, plain TCP, nothing of them read."""

    count: int


class Taken(msgspec.Struct, frozen=True, tag=True):
    """They are served here now."""

    count: int


def socket_path(host: Host, index: int) -> str:
    """Return where worker `index` takes connections over."""
    return host.path("tables", f"proxy-{index}.sock")


class Taker:
    """Takes connections over from workers of the same user. `adopt` owns the socket."""

    def __init__(self, host: Host, index: int, adopt: Callable[[socket.socket], None]) -> None:
        self._adopt = adopt
        self.accepts = True
        uid = os.geteuid()
        self._listener: Listener[Passed] = Listener(
            socket_path(host, index),
            Passed,
            self._take,
            lambda _: None,
            admit=lambda peer: self.accepts and peer.uid == uid and peer.pid != os.getpid(),
            mode=0o600,
        )

    def close(self) -> None:
        """Take no more."""
        self._listener.close()

    def _take(self, channel: Channel[Passed], message: Passed, fds: list[int]) -> None:
        for fd in fds:
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            self._adopt(sock)
        channel.send(Taken(message.count))


class Giver:
    """Gives connections to another worker, a batch at a time; `on_taken(descriptors)` or `on_lost()` follows each."""

    def __init__(self, path: str, on_taken: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Connect; `OSError` if nobody listens."""
        self._on_taken = on_taken
        self._on_lost = on_lost
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        self._channel: Channel[Taken] = Channel(sock, Taken, self._answered, self._lost)

    @property
    def to_self(self) -> bool:
        """Whether the other end is this very process."""
        return self._channel.peer.pid == os.getpid()

    def give(self, fds: Sequence[int]) -> None:
        """Send at most `BATCH` descriptors, which stay ours until they are taken."""
        self._channel.send(Passed(len(fds)), fds)

    def close(self) -> None:
        """End the connection."""
        self._channel.close()

    def _answered(self, _channel: Channel[Taken], _message: Taken, _fds: list[int]) -> None:
        self._on_taken()

    def _lost(self, _channel: Channel[Taken]) -> None:
        self._on_lost()

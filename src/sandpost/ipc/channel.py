"""One typed message a packet over SOCK_SEQPACKET, which keeps a message and its descriptors together.

A `Channel` never blocks and never waits: what the kernel does not take is queued up to a bound, beyond which
the peer counts as dead and the channel closes. Works on asyncio's and on uvloop's event loop.
"""

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from sandpost.kernel import sockets
from sandpost.kernel.descriptors import close_all

MAX_PACKET = 160 * 1024
"""Bytes of a message; a socket's default buffer of 208 KiB takes it in one piece."""
MAX_FDS = 64
_MAX_QUEUED = 65536
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec says to bytes that are no message: those of text and of depth are Python's own."""
_PEERCRED = struct.Struct("3i")

In = TypeVar("In")


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel says (SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


class Channel(Generic[In]):
    """A connection that carries messages of one union type in, and any message out.

    `on_message(channel, message, fds)` owns the descriptors it gets. `on_close(channel)` is called once, also
    after `close()`. Both run in the event loop that made the channel.
    """

    def __init__(
        self,
        sock: socket.socket,
        inward: Any,
        on_message: "Callable[[Channel[In], In, list[int]], None]",
        on_close: "Callable[[Channel[In]], None]",
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._decode = msgspec.msgpack.Decoder(inward).decode
        self._on_message = on_message
        self._on_close = on_close
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        self._closed = False
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
        self.peer = Peer(*_PEERCRED.unpack(raw))
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def closed(self) -> bool:
        """Whether the channel has ended."""
        return self._closed

    def send(self, message: msgspec.Struct, fds: Sequence[int] = ()) -> None:
        """Send `message` with copies of `fds`; on a closed channel nothing happens.

        The caller keeps its descriptors and may close them at once.
        """
        if self._closed:
            return
        packet = msgspec.msgpack.encode(message)
        if len(packet) > MAX_PACKET:
            raise ValueError(f"message of {len(packet)} bytes: send it in parts of {MAX_PACKET}")
        if not self._queue and (self._try_send(packet, fds) or self.closed):
            return
        if len(self._queue) >= _MAX_QUEUED:
            self.close()
            return
        if not self._queue:
            self._loop.add_writer(self._sock.fileno(), self._writable)
        self._queue.append((packet, [os.dup(fd) for fd in fds]))

    def close(self) -> None:
        """End the channel; what is still queued is lost."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for _, fds in self._queue:
            close_all(fds)
        self._queue.clear()
        self._on_close(self)

    def _try_send(self, packet: bytes, fds: Sequence[int]) -> bool:
        try:
            if fds:
                socket.send_fds(self._sock, [packet], list(fds))
            else:
                self._sock.send(packet)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self.close()
            return False
        return True

    def _writable(self) -> None:
        while self._queue:
            packet, fds = self._queue[0]
            if not self._try_send(packet, fds):
                return
            self._queue.popleft()
            close_all(fds)
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        # A bounded number of packets a turn, so that a chatty peer does not starve the loop.
        for _ in range(64):
            try:
                packet, fds, flags, _ = socket.recv_fds(self._sock, MAX_PACKET + 1, MAX_FDS)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self.close()
                return
            if not packet or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                close_all(fds)
                self.close()
                return
            try:
                message = self._decode(packet)
            except UNREADABLE:
                close_all(fds)
                self.close()
                return
            self._on_message(self, message, fds)
            if self._closed:
                return


class Listener(Generic[In]):
    """A listening unix socket that makes a `Channel` of every connection whose peer `admit` lets in."""

    def __init__(
        self,
        path: str,
        inward: Any,
        on_message: "Callable[[Channel[In], In, list[int]], None]",
        on_close: "Callable[[Channel[In]], None]",
        *,
        admit: Callable[[Peer], bool],
        mode: int = 0o666,
    ) -> None:
        self._path = path
        self._inward = inward
        self._on_message = on_message
        self._on_close = on_close
        self._admit = admit
        self._loop = asyncio.get_running_loop()
        self.channels: set[Channel[In]] = set()
        self._sock = sockets.listen(path, socket.SOCK_SEQPACKET, mode=mode, backlog=128)
        self._inode = os.stat(path).st_ino
        self._sock.setblocking(False)
        self._loop.add_reader(self._sock.fileno(), self._acceptable)

    def close(self) -> None:
        """Stop listening, close every channel, and remove the socket if it is still ours."""
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        sockets.unlink_own(self._path, self._inode)
        for channel in list(self.channels):
            channel.close()

    def _acceptable(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return
        channel: Channel[In] = Channel(sock, self._inward, self._on_message, self._forget)
        if not self._admit(channel.peer):
            channel.close()
            return
        self.channels.add(channel)

    def _forget(self, channel: Channel[In]) -> None:
        if channel in self.channels:
            self.channels.discard(channel)
            self._on_close(channel)


class Connector(Generic[In]):
    """Keeps one channel to a `Listener` open: connects, says hello, and connects again when it is lost.

    `greet(channel)` runs at each new connection before anything else is sent; `on_lost()` when it ends.
    `send` returns False while there is no connection; nothing is kept for later.
    """

    RETRY = 0.05
    RETRY_MAX = 1.0

    def __init__(
        self,
        path: str,
        inward: Any,
        on_message: "Callable[[Channel[In], In, list[int]], None]",
        *,
        greet: "Callable[[Channel[In]], None]",
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._path = path
        self._inward = inward
        self._on_message = on_message
        self._greet = greet
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._channel: Channel[In] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._delay = self.RETRY
        self._closed = False
        self._connect()

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._channel is not None

    def send(self, message: msgspec.Struct, fds: Sequence[int] = ()) -> bool:
        """Send if connected; say whether it was."""
        if self._channel is None:
            return False
        self._channel.send(message, fds)
        return self._channel is not None

    def close(self) -> None:
        """Disconnect and stay so."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._channel is not None:
            self._channel.close()

    def _connect(self) -> None:
        self._timer = None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            self._timer = self._loop.call_later(self._delay, self._connect)
            self._delay = min(self._delay * 2, self.RETRY_MAX)
            return
        self._delay = self.RETRY
        self._channel = Channel(sock, self._inward, self._on_message, self._lost)
        self._greet(self._channel)

    def _lost(self, _channel: Channel[In]) -> None:
        self._channel = None
        self._on_lost()
        if not self._closed:
            self._timer = self._loop.call_later(self._delay, self._connect)

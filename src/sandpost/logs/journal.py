"""The way of a process's own records to the bus: datagrams to a socket that the collector reads.

The supervisor binds the socket and holds it, so that what was sent waits for the next collector. Nothing here waits:
what the socket does not take stays here up to a bound, beyond which records are counted, and the count is told where
they are missing. A process without a loop sends when it next says something.
"""

import asyncio
import os
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass, field

import msgspec

from sandpost.logs import bunyan
from sandpost.logs.drops import Drops
from sandpost.logs.platform import Voice
from sandpost.model.messages import Records
from sandpost.model.names import SYSTEM

MOST = 1 << 20
"""Bytes of records that wait here."""
LONGEST = 32 * 1024
"""Bytes of one record."""
PACKET = 64 * 1024
"""Bytes of records in one datagram; a socket's default buffer of 208 KiB takes it in one piece."""
_BATCHED = 0.002
"""Seconds in which records are gathered that need not go at once."""
_AGAIN = 0.05
_CONNECT_AGAIN = 1.0
_MOST_LOSERS = 1000
"""Streams whose losses are counted apart; what others lose is told to the operator."""
_REASON = "the log could not be written"


@dataclass(slots=True)
class _Waiting:
    lines: deque[bytes] = field(default_factory=deque)
    at: float = 0.0


class Journal:
    """One process's. Any thread may write; the first event loop that does lets the rest go without a next record."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.voice = Voice(socket.gethostname(), os.getpid())
        # Reentrant: a collected object may log while its thread is in here.
        self._lock = threading.RLock()
        self._sending = False
        self._waiting: dict[str, _Waiting] = {}
        self._size = 0
        self._lost: dict[str, Drops] = {}
        self._socket: socket.socket | None = None
        self._connect_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._planned = False

    def tell(self, tenant: str, text: str, *, level: int = bunyan.INFO, **fields: str | float) -> None:
        """Tell a tenant something in his stream."""
        at = time.time()
        self.add(tenant, self.voice.line(tenant, text, at, level=level, **fields), at)
        self.flush()

    def add(self, stream: str, line: bytes, at: float) -> None:
        """Take a record, with its line end, that may wait for others. `at`: its time, in seconds since the epoch."""
        with self._lock:
            if len(line) > LONGEST or self._size + len(line) > MOST:
                self._lose(stream, 1)
            else:
                waiting = self._waiting.get(stream)
                if waiting is None:
                    waiting = self._waiting[stream] = _Waiting()
                waiting.lines.append(line)
                waiting.at = at
                self._size += len(line)
        if not self._planned:
            self._plan(_BATCHED)

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it."""
        with self._lock:
            if self._sending:
                return
            self._sending = True
            try:
                self._tell_losses()
                if not self._send_all():
                    self._plan(_AGAIN)
            finally:
                self._sending = False

    def close(self) -> None:
        """Send what is taken at once, and let go."""
        self.flush()
        with self._lock:
            self._loop = None
            self._disconnect(0.0)

    def _plan(self, delay: float) -> None:
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if self._loop is None:
            self._loop = here
        loop = self._loop
        if loop is None or self._planned or loop.is_closed():
            return
        self._planned = True
        if here is loop:
            loop.call_later(delay, self._planned_flush)
        else:
            loop.call_soon_threadsafe(loop.call_later, delay, self._planned_flush)

    def _planned_flush(self) -> None:
        self._planned = False
        self.flush()

    def _send_all(self) -> bool:
        """Whether nothing waits any more."""
        while self._waiting:
            stream, waiting = next(iter(self._waiting.items()))
            lines, size = [], 0
            for line in waiting.lines:
                if size + len(line) > PACKET:
                    break
                lines.append(line)
                size += len(line)
            if not self._send(Records(stream=stream, count=len(lines), at=waiting.at, lines=b"".join(lines))):
                return False
            self._size -= size
            for _ in lines:
                waiting.lines.popleft()
            # Behind the others, so that streams take turns.
            del self._waiting[stream]
            if waiting.lines:
                self._waiting[stream] = waiting
        return not self._lost

    def _send(self, records: Records) -> bool:
        now = time.monotonic()
        if self._socket is None and not self._connect(now):
            return False
        assert self._socket is not None
        try:
            self._socket.send(msgspec.msgpack.encode(records))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            # Whoever held the socket is gone; there is another one, or soon will be.
            self._disconnect(now + _CONNECT_AGAIN)
            return False
        return True

    def _connect(self, now: float) -> bool:
        if now < self._connect_at:
            return False
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            self._connect_at = now + _CONNECT_AGAIN
            return False
        self._socket = sock
        return True

    def _disconnect(self, again: float) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._connect_at = again

    def _lose(self, stream: str, lines: int) -> None:
        if stream not in self._lost and len(self._lost) >= _MOST_LOSERS:
            stream = SYSTEM
        self._lost.setdefault(stream, Drops()).add(lines, time.monotonic())

    def _tell_losses(self) -> None:
        now, at = time.monotonic(), time.time()
        for stream, drops in list(self._lost.items()):
            if drops.due(now) and self._size < MOST // 2:
                line = self.voice.line(stream, drops.sentence(_REASON), at, level=bunyan.WARN)
                del self._lost[stream]
                self.add(stream, line, at)

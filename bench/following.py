"""Lines that say when they were written, and who reads them as they come: over HTTP, or from a command.

A stamp is `at=<ns of CLOCK_MONOTONIC>;`: this clock is the same for all processes of the machine, in sandboxes too.
"""

import asyncio
import contextlib
import os
import random
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self, cast

from bench.client import DEADLINE, BrokenAnswer

Take = Callable[[bytes, int], object]
"""Is called with whole lines, and the moment at which they were there (ns)."""

_STAMP = re.compile(rb"at=(\d+);")
_LEAST_PAUSE = 0.01


def stamped(size: int) -> bytes:
    """Return a line of `size` characters with the stamp of this moment."""
    return (b"at=%d;" % time.monotonic_ns()).ljust(size, b"x") + b"\n"


def delays(lines: bytes, now: int) -> list[float]:
    """Return the seconds from each stamp in `lines` to `now`."""
    return [(now - int(stamp)) / 1e9 for stamp in _STAMP.findall(lines)]


async def paced(rate: float, seconds: float, size: int) -> AsyncIterator[bytes]:
    """Yield stamped lines at a pace, as `say.js` writes them."""
    began = time.monotonic()
    pause = max(_LEAST_PAUSE, 1 / rate)
    written = 0
    while True:
        passed = time.monotonic() - began
        due = int(min(passed, seconds) * rate)
        for _ in range(due - written):
            yield stamped(size)
        written = due
        if passed >= seconds:
            return
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))


class Delays:
    """Takes lines and keeps their delays in `seconds`, while it is `counting`."""

    def __init__(self) -> None:
        self.counting = True
        self.seconds: list[float] = []

    def take(self, lines: bytes, now: int) -> None:
        """See `Take`."""
        if self.counting:
            self.seconds += delays(lines, now)


class Whole:
    """Makes whole lines of bytes as they come."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return what is whole now; the rest waits for more."""
        lines, end, rest = data.rpartition(b"\n")
        if not end:
            self._rest += rest
            return b""
        lines, self._rest = self._rest + lines + end, rest
        return lines


class Chunks:
    """Takes a chunked body apart as it comes."""

    def __init__(self) -> None:
        self._held = b""
        self._left = 0
        self._line_end = 0

    def feed(self, data: bytes) -> bytes:
        """Return the content that is there; `ValueError` for what is no chunk."""
        held, at = self._held + data, 0
        found: list[bytes] = []
        while True:
            content = held[at : at + self._left]
            found.append(content)
            at += len(content)
            self._left -= len(content)
            if self._left:
                break
            passed = min(self._line_end, len(held) - at)
            at += passed
            self._line_end -= passed
            end = held.find(b"\r\n", at)
            if self._line_end or end < 0:
                break
            self._left, self._line_end = int(held[at:end], 16), 2
            at = end + 2
        self._held = held[at:]
        return b"".join(found)


class Follower(asyncio.Protocol):
    """One open stream of lines at 127.0.0.1; an async context manager that begins when the answer's head has come."""

    def __init__(self, port: int, target: str, key: str, take: Take) -> None:
        if not target.startswith("/"):
            raise ValueError(f"{target!r} is no path")
        lines = (f"GET {target} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {key}")
        self._request = "\r\n".join((*lines, "", "")).encode()
        self._port = port
        self._take = take
        self._head: bytes | None = b""
        self._chunks = Chunks()
        self._lines = Whole()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._why = ""

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE):
            await loop.create_connection(lambda: self, "127.0.0.1", self._port)
            try:
                await self._opened
            except BaseException:
                self._end()
                raise
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._end()

    def check(self) -> None:
        """Raise `BrokenAnswer` if the stream has ended by itself: then lines may be missing."""
        if self._why:
            raise BrokenAnswer(self._why)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask (asyncio's callback)."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take bytes, and hand on the lines that are whole (asyncio's callback)."""
        now = time.monotonic_ns()
        if self._head is not None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = None
            if head.split(b" ", 2)[1] != b"200" or b"transfer-encoding: chunked" not in head.lower():
                self._break(f"no stream: {head[:300]!r} {data[:300]!r}")
                return
            self._opened.set_result(None)
        try:
            lines = self._lines.feed(self._chunks.feed(data))
        except ValueError as error:
            self._break(str(error))
            return
        if lines:
            self._take(lines, now)

    def connection_lost(self, error: Exception | None) -> None:
        """Note that it ended (asyncio's callback)."""
        if self._transport is not None:
            self._break(f"the stream ended: {error}")

    def _break(self, why: str) -> None:
        self._why = self._why or why
        if not self._opened.done():
            self._opened.set_exception(BrokenAnswer(why))
        self._end()

    def _end(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()


@contextlib.asynccontextmanager
async def printed(command: Sequence[str], take: Take) -> AsyncIterator[None]:
    """Run a command and take what it prints; it ends with the block."""
    loop = asyncio.get_running_loop()
    lines = Whole()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        fd = process.stdout.fileno()

        def read() -> None:
            data = os.read(fd, 1 << 16)
            now = time.monotonic_ns()
            if not data:
                loop.remove_reader(fd)
            elif whole := lines.feed(data):
                take(whole, now)

        loop.add_reader(fd, read)
        try:
            yield
        finally:
            loop.remove_reader(fd)
            process.kill()

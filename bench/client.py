"""A raw HTTP/1.1 client that costs little beside what it measures: one connection, one request after another."""

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast

DEADLINE = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `seconds`: from the first byte sent (or the connection begun) to the last one read."""

    status: int
    body: bytes
    seconds: float


class BrokenAnswer(Exception):  # noqa: N818 - it says what is wrong
    """The connection ended, or what came was no answer."""


def post(target: str, key: str, body: bytes) -> bytes:
    """Return the bytes of a POST with a key, which stays out of the target; `ValueError` unless that is a path."""
    if not target.startswith("/"):
        raise ValueError(f"{target!r} is no path")
    lines = (
        f"POST {target} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {key}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


class Connection(asyncio.Protocol):
    """One keep-alive connection to 127.0.0.1; an async context manager."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(DEADLINE):
            await loop.create_connection(lambda: self, "127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._transport is not None:
            self._transport.close()

    async def ask(self, request: bytes) -> Answer:
        """Send a request, return its answer; `BrokenAnswer` or `TimeoutError` if there is none."""
        if self._transport is None:
            raise BrokenAnswer("not connected")
        self._waiter = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        self._transport.write(request)
        async with asyncio.timeout(DEADLINE):
            status, body = await self._waiter
        return Answer(status, body, time.perf_counter() - began)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio's callback)."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes; finish the answer when it is whole (asyncio's callback)."""
        self._buffer += data
        if self._waiter is None or self._waiter.done():
            return
        try:
            found = parse(bytes(self._buffer))
        except ValueError as error:
            self._waiter.set_exception(BrokenAnswer(str(error)))
            return
        if found is not None:
            status, body, end = found
            del self._buffer[:end]
            self._waiter.set_result((status, body))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what is waited for (asyncio's callback)."""
        self._transport = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(BrokenAnswer(f"connection ended: {error}"))


async def ask_once(port: int, request: bytes) -> Answer:
    """Connect, ask, disconnect; the time begins before connecting."""
    began = time.perf_counter()
    async with Connection(port) as connection:
        answer = await connection.ask(request)
        return Answer(answer.status, answer.body, time.perf_counter() - began)


def parse(data: bytes) -> tuple[int, bytes, int] | None:
    """Return status, body and length of the answer that `data` begins with; None while it is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    lines = data[:end].split(b"\r\n")
    status = int(lines[0].split(b" ", 2)[1])
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    at = end + 4
    if fields.get(b"transfer-encoding") == b"chunked":
        return _chunked(data, at, status)
    if b"content-length" not in fields:
        raise ValueError(f"an answer without a length: {data[:80]!r}")
    length = int(fields[b"content-length"])
    if len(data) < at + length:
        return None
    return status, data[at : at + length], at + length


def _chunked(data: bytes, at: int, status: int) -> tuple[int, bytes, int] | None:
    parts: list[bytes] = []
    while True:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        size = int(data[at:end], 16)
        at = end + 2 + size + 2
        if len(data) < at:
            return None
        if not size:
            return status, b"".join(parts), at
        parts.append(data[end + 2 : end + 2 + size])

"""Moves bytes both ways between two sockets: back-pressure, half-close, an idle limit, and no task a direction.

One buffer for all connections of the process: what is read is written in the same turn, and only what the slower side
does not take (one read, `CHUNK` bytes at most) is kept, until it does; the faster side is not read meanwhile.
"""

import asyncio
import contextlib
import socket
from typing import Protocol

from sandpost.egress.body import Body, BrokenBody

CHUNK = 256 * 1024
IDLE = 600.0
"""Seconds without a byte either way after which a connection ends."""

_buffer = bytearray(CHUNK)
_view = memoryview(_buffer)


class Tally(Protocol):
    """Where bytes are counted."""

    bytes_in: int
    bytes_out: int


class _Flow:
    """One direction."""

    __slots__ = ("body", "ended", "outward", "pending", "sink", "source")

    def __init__(self, source: socket.socket, sink: socket.socket, *, outward: bool, body: Body | None) -> None:
        self.source = source
        self.sink = sink
        self.outward = outward
        self.body = body
        self.pending = b""
        self.ended = False
        """Its source has said its last."""


class Pump:
    """One connection. `body`: only so much goes outwards; what comes after it is read and dropped."""

    def __init__(self, inside: socket.socket, outside: socket.socket, tally: Tally, body: Body | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._tally = tally
        self._flows = (
            _Flow(inside, outside, outward=True, body=body),
            _Flow(outside, inside, outward=False, body=None),
        )
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._at = self._loop.time()

    async def run(self, first: bytes = b"") -> None:
        """Move `first` outwards, then everything, until both ends have ended or it is idle too long.

        Raises `OSError` when one side breaks: the other one must not take that for an end. The sockets stay the
        caller's to close.
        """
        outward = self._flows[0]
        try:
            if first:
                self._pass_on(outward, memoryview(first))
            for flow in self._flows:
                if not flow.pending:
                    self._loop.add_reader(flow.source.fileno(), self._readable, flow)
            while not self._done.done():
                try:
                    async with asyncio.timeout_at(self._at + IDLE):
                        await asyncio.shield(self._done)
                except TimeoutError:
                    if self._loop.time() >= self._at + IDLE:
                        return
            self._done.result()
        finally:
            for flow in self._flows:
                self._loop.remove_reader(flow.source.fileno())
                self._loop.remove_writer(flow.sink.fileno())
            self._done.cancel()

    def _readable(self, flow: _Flow) -> None:
        try:
            count = flow.source.recv_into(_buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._finish(error)
            return
        self._at = self._loop.time()
        if count == 0:
            flow.ended = True
            self._loop.remove_reader(flow.source.fileno())
            self._half_close(flow)
            return
        try:
            if flow.body is not None:
                count = 0 if flow.body.ended else flow.body.feed(_view[:count])
        except BrokenBody as error:
            self._finish(ConnectionAbortedError(str(error)))
            return
        if count:
            self._pass_on(flow, _view[:count])
            if flow.pending:
                self._loop.remove_reader(flow.source.fileno())

    def _pass_on(self, flow: _Flow, data: memoryview) -> None:
        try:
            sent = flow.sink.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._finish(error)
            return
        if flow.outward:
            self._tally.bytes_out += sent
        else:
            self._tally.bytes_in += sent
        if sent < len(data):
            flow.pending = bytes(data[sent:])
            self._loop.add_writer(flow.sink.fileno(), self._writable, flow)

    def _writable(self, flow: _Flow) -> None:
        self._at = self._loop.time()
        data, flow.pending = flow.pending, b""
        self._pass_on(flow, memoryview(data))
        if flow.pending or self._done.done():
            return
        self._loop.remove_writer(flow.sink.fileno())
        if not flow.ended:
            self._loop.add_reader(flow.source.fileno(), self._readable, flow)
        else:
            self._half_close(flow)

    def _half_close(self, flow: _Flow) -> None:
        if flow.pending:
            return
        # The peer may be gone already.
        with contextlib.suppress(OSError):
            flow.sink.shutdown(socket.SHUT_WR)
        if all(one.ended and not one.pending for one in self._flows):
            self._finish()

    def _finish(self, error: OSError | None = None) -> None:
        if self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)

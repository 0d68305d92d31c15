"""An upgraded connection: bytes both ways, with back-pressure, until a side ends it or it is idle for too long."""

from typing import TYPE_CHECKING

from sandpost.proxy import cors
from sandpost.proxy.http1.body import NONE
from sandpost.proxy.http1.render import render_response
from sandpost.proxy.http1.response import ResponseHead
from sandpost.proxy.upstream import Upstream

if TYPE_CHECKING:
    from sandpost.model.errors import SandpostError
    from sandpost.proxy.call import Call
    from sandpost.proxy.plan import Plan


class Tunnel:
    """Takes the place of the call whose answer was 101; the call's seat and connection are held until its end."""

    __slots__ = ("_client", "_idle", "_last", "_up", "_worker", "call", "done", "due")

    def __init__(self, call: "Call", up: Upstream, head: ResponseHead, rest: bytes) -> None:
        worker, client = call.worker, call.client
        self.call = call
        self._worker = worker
        self._client = client
        self._up = up
        self._idle = call.limits.upgrade_idle
        self._last = worker.now()
        self.due = self._last + self._idle
        self.done = False
        rendered = render_response(
            101,
            head.headers,
            framing=NONE,
            method=call.plan.head.method,
            date=worker.date,
            extra=[(b"x-sandpost-req", call.req_id.encode()), *([cors.ALLOW_ORIGIN] if call.plan.origin else [])],
            upgrade=head.upgrade,
        )
        call.done = True
        call.ended(101)
        worker.counts.tunnels += 1
        worker.exchanges.discard(call)
        worker.exchanges.add(self)
        client.handler = self
        client.keep_alive = False
        up.user = self
        client.write(rendered + rest)
        early = client.take_kept()
        client.resume_reading()
        if early:
            self.client_data(early)

    def client_data(self, data: bytes) -> None:
        """Bytes from the client."""
        self._last = self._worker.now()
        if self._up.transport is not None:
            self._up.transport.write(data)
            self.call.passed_in(len(data))

    def client_eof(self) -> None:
        """The client sends nothing more: let the program know."""
        if not self.done and self._up.transport is not None and self._up.transport.can_write_eof():
            self._up.transport.write_eof()

    def client_lost(self) -> None:
        """The client is gone."""
        self._end()

    def client_writable(self, writable: bool) -> None:
        """The client takes more, or has enough for now."""
        transport = self._up.transport
        if transport is None or transport.is_closing():
            return
        if writable:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def up_ready(self, up: Upstream) -> None:
        """Never: a tunnel has its connection."""

    def up_failed(self, error: str) -> None:
        """Never: a tunnel has its connection."""

    def up_data(self, data: bytes) -> None:
        """Bytes from the program."""
        self._last = self._worker.now()
        self._client.write(data)
        self.call.passed_out(len(data))

    def up_lost(self, _clean: bool) -> None:
        """The program ended it, or its sandbox did."""
        self._end()

    def up_writable(self, writable: bool) -> None:
        """The program takes more, or has enough for now."""
        if writable:
            self._client.resume_reading()
        else:
            self._client.pause_reading()

    def look_after(self, now: float) -> None:
        """Nothing: idleness is the only limit."""

    def timed_out(self) -> None:
        """`due` has passed: end it if it was idle all the time."""
        if self._worker.now() - self._last >= self._idle:
            self._end()
        else:
            self.due = self._last + self._idle

    @property
    def plan(self) -> "Plan":
        """What its call asked for."""
        return self.call.plan

    def withdraw(self, _error: "SandpostError") -> None:
        """Its key is good no longer."""
        self._end()

    def cut(self) -> None:
        """End it now: the worker stops."""
        self._worker.counts.streams_cut += 1
        self._end()

    def _end(self) -> None:
        if self.done:
            return
        self.done = True
        self._worker.counts.tunnels -= 1
        self._worker.exchanges.discard(self)
        self.call.released(False)
        self._client.answered(read_to_end=True)

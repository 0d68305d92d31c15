"""Sending a program to a sandbox, for whoever waits for it."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from sandpost.model.errors import BadGateway, Fault
from sandpost.proxy.http1.errors import BrokenResponse
from sandpost.proxy.http1.response import ResponseHead
from sandpost.proxy.plan import Plan
from sandpost.proxy.program import Program
from sandpost.proxy.reply import OtherWire, Reply
from sandpost.proxy.upstream import Pool, Upstream

_MAX_BODY = 512 * 1024
"""What an honest runtime says of a failure is shorter (docs/runtime.md)."""


def source_of(said: bytes | None) -> bytes:
    """Return what of an answer's source goes to the caller: a sandbox never speaks for the platform."""
    return b"compiler" if said == b"compiler" else b"webtask"


class NotUnderstood(BadGateway):
    """A sandbox answers a load with what an honest runtime does not say. What comes out of it is the tenant's."""

    fault: ClassVar[Fault] = "code"

    def __init__(self, rule: str) -> None:
        super().__init__(f"the sandbox's answer about loading the program is not understood: {rule}")


class Failure:
    """A runtime's answer that says why a program was not loaded, as it goes to the caller."""

    def __init__(self, status: int, source: bytes, body: bytes, req_id: str, *, replace: bool) -> None:
        self.status = status
        self.source = source
        self.replace = replace
        """Whether the runtime asks for a successor of its sandbox."""
        self._body = body
        self._req_id = req_id.encode()

    def body_for(self, req_id: str) -> bytes:
        """Return the body with the id of the call that it answers."""
        return self._body.replace(self._req_id, req_id.encode())


class Waiter(Protocol):
    """A call that waits for a load."""

    req_id: str
    plan: Plan

    def load_ended(self, failure: Failure | None, *, made: bool) -> None:
        """The program is loaded, or will not be. `made`: the sandbox has made something of it that can be kept."""

    def load_refused(self, error: BadGateway) -> None:
        """The sandbox answered, but with nothing that can be understood."""

    def load_broke(self, error: str, *, wire: bytes | None) -> None:
        """The connection broke; `wire` is the version of a runtime that is not ours."""


class Load:
    """One load. `on_end(load)` runs once it was started and has ended, however, when the waiters have heard."""

    def __init__(self, pool: Pool, program: Program, first: "Waiter", on_end: "Callable[[Load], None]") -> None:
        self.size = len(program.code) + len(program.made)
        self._on_end = on_end
        self._program = program
        self._req_id = first.req_id
        self._trace_id = first.plan.trace_id
        self._pool = pool
        self.waiters: list[Waiter] = []
        self.ended = False
        self.loaded = False
        self._up: Upstream | None = None
        self._reply = Reply("PUT", _MAX_BODY)

    def start(self) -> None:
        """Take a connection and send the program."""
        up = self._pool.take(self)
        if up is not None:
            self.up_ready(up)

    def cancel(self) -> None:
        """Stop; nobody waits any more."""
        if self.ended:
            return
        self._pool.forget(self)
        self._end_connection()
        self._on_end(self)

    def up_ready(self, up: Upstream) -> None:
        """Send."""
        if self.ended:
            self._pool.give(up)
            return
        self._up = up
        assert up.transport is not None
        program = self._program
        trace = f"x-sandpost-trace: {self._trace_id}\r\n" if self._trace_id else ""
        modules = f"x-sandpost-modules: {program.modules}\r\n" if program.modules else ""
        made = f"x-sandpost-made: {len(program.made)}\r\n" if program.made else ""
        head = (
            "PUT / HTTP/1.1\r\nx-sandpost-op: load\r\n"
            f"x-sandpost-code: {program.id}\r\nx-sandpost-req: {self._req_id}\r\n{trace}{modules}{made}"
            f"host: sandbox\r\ncontent-type: {program.language.content_type}\r\ncontent-length: {self.size}\r\n\r\n"
        )
        up.transport.write(head.encode() + program.code + program.made)

    def up_failed(self, error: str) -> None:
        """No connection."""
        self._break(error)

    def up_writable(self, writable: bool) -> None:
        """A program is bounded and was handed over whole."""

    def up_lost(self, _clean: bool) -> None:
        """The connection ended."""
        self._up = None
        if not self.ended:
            self._break("the connection ended while the program was loaded")

    def up_data(self, data: bytes) -> None:
        """Read the answer."""
        try:
            head = self._reply.feed(data)
            if head is not None:
                self._finish(head)
        except OtherWire as other:
            self._break("the runtime's wire has another version", wire=other.wire)
        except BrokenResponse as error:
            self._end_connection()
            self._refuse(error.rule)

    def _finish(self, head: ResponseHead) -> None:
        self.ended = True
        up, self._up = self._up, None
        if up is not None:
            # Answered before it was read, a program may still wait here, before the next call's head.
            if head.keep_alive and up.transport is not None and up.transport.get_write_buffer_size() == 0:
                self._pool.give(up)
            else:
                up.end()
        failure = None
        if head.status == 204:
            self.loaded = True
        elif 400 <= head.status < 500:
            source = source_of(head.get(b"x-sandpost-source") or b"compiler")
            failure = Failure(
                head.status,
                source,
                self._reply.body,
                self._req_id,
                replace=head.get(b"x-sandpost-replace") is not None,
            )
        else:
            self._refuse(f"status {head.status}")
            return
        made = head.get(b"x-sandpost-made") is not None
        for waiter in self._take():
            waiter.load_ended(failure, made=made)
        self._on_end(self)

    def _break(self, error: str, *, wire: bytes | None = None) -> None:
        self._end_connection()
        for waiter in self._take():
            waiter.load_broke(error, wire=wire)
        self._on_end(self)

    def _refuse(self, rule: str) -> None:
        # Its connection works, and what it said may depend on this program alone: it is no reason to end the sandbox.
        error = NotUnderstood(rule)
        for waiter in self._take():
            waiter.load_refused(error)
        self._on_end(self)

    def _end_connection(self) -> None:
        self.ended = True
        up, self._up = self._up, None
        if up is not None:
            up.end()

    def _take(self) -> Sequence[Waiter]:
        waiters, self.waiters = self.waiters, []
        return waiters

"""Sending a program to a sandbox, for whoever waits for it."""

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from sandpost.model.errors import BadGateway, Fault
from sandpost.model.wire import VERSION
from sandpost.proxy.http1.body import BodyReader
from sandpost.proxy.http1.errors import BrokenResponse
from sandpost.proxy.http1.response import ResponseHead, parse_response
from sandpost.proxy.upstream import Pool, Upstream

WIRE = b"%d" % VERSION
"""The version of docs/runtime.md that this proxy speaks."""
_MAX_HEAD = 16 * 1024
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

    def __init__(self, status: int, source: bytes, body: bytes, req_id: str) -> None:
        self.status = status
        self.source = source
        self._body = body
        self._req_id = req_id.encode()

    def body_for(self, req_id: str) -> bytes:
        """Return the body with the id of the call that it answers."""
        return self._body.replace(self._req_id, req_id.encode())


class Waiter(Protocol):
    """A call that waits for a load."""

    req_id: str

    def load_ended(self, failure: Failure | None) -> None:
        """The program is loaded, or will not be."""

    def load_refused(self, error: BadGateway) -> None:
        """The sandbox answered, but with nothing that can be understood."""

    def load_broke(self, error: str, *, wire: bytes | None) -> None:
        """The connection broke; `wire` is the version of a runtime that is not ours."""


class Load:
    """One load. `on_end(load)` runs once it was started and has ended, however, when the waiters have heard."""

    def __init__(self, pool: Pool, code_hash: str, code: bytes, req_id: str, on_end: "Callable[[Load], None]") -> None:
        self.code_hash = code_hash
        self.size = len(code)
        self._on_end = on_end
        self._code = code
        self._req_id = req_id
        self._pool = pool
        self.waiters: list[Waiter] = []
        self.ended = False
        self.loaded = False
        self._up: Upstream | None = None
        self._partial = b""
        self._head: ResponseHead | None = None
        self._reader: BodyReader | None = None
        self._body: list[bytes] = []
        self._size = 0

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
        head = (
            "PUT / HTTP/1.1\r\nx-sandpost-op: load\r\n"
            f"x-sandpost-code: {self.code_hash}\r\nx-sandpost-req: {self._req_id}\r\n"
            f"host: sandbox\r\ncontent-type: application/javascript\r\ncontent-length: {len(self._code)}\r\n\r\n"
        )
        up.transport.write(head.encode() + self._code)

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
            self._read(data)
        except BrokenResponse as error:
            self._end_connection()
            self._refuse(error.rule)

    def _read(self, data: bytes) -> None:
        if self._reader is None:
            self._partial += data
            head = parse_response(self._partial, _MAX_HEAD, "PUT")
            if head is None:
                return
            wire = head.get(b"x-sandpost-wire")
            if wire != WIRE:
                self._break("the runtime's wire has another version", wire=wire or b"none")
                return
            self._head = head
            self._reader = BodyReader(head.body, BrokenResponse)
            data = self._partial[head.size :]
        for piece in self._reader.feed(data):
            self._body.append(bytes(piece))
            self._size += len(piece)
        if self._size > _MAX_BODY:
            raise BrokenResponse("the answer to a load is too long")
        if not self._reader.finished:
            return
        if self._reader.excess:
            raise BrokenResponse("bytes follow the answer to a load")
        self._finish()

    def _finish(self) -> None:
        head, up = self._head, self._up
        assert head is not None
        self.ended = True
        self._up = None
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
            failure = Failure(head.status, source, b"".join(self._body), self._req_id)
        else:
            self._refuse(f"status {head.status}")
            return
        for waiter in self._take():
            waiter.load_ended(failure)
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

"""A client's connection: reads requests one after another, hands each to what answers it, and ends in order.

State stands in three groups: of the connection, of reading, of the exchange under way. Requests that come while one
is answered wait in `_kept`, within a bound beyond which the connection is not read.
"""

import asyncio
import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING, Protocol, cast

from sandpost.model.errors import MalformedRequest, RequestTimeout, SandpostError
from sandpost.proxy import forwarded, health
from sandpost.proxy.answers import error_answer, json_answer, preflight_answer
from sandpost.proxy.call import Call
from sandpost.proxy.gathering import Gathering, code_too_large
from sandpost.proxy.http1.body import Piece
from sandpost.proxy.http1.request import parse_request
from sandpost.proxy.passthrough import Passage
from sandpost.proxy.plan import Plan, Way, check_code_type
from sandpost.proxy.reading import Reading

if TYPE_CHECKING:
    from sandpost.proxy.worker import Worker

_MAX_KEPT = 4 * 1024
"""Bytes of later requests beyond which nothing more is read: one read may come on top."""
_LEAST = 16 * 1024
"""Bytes of its answer that a client takes within its patience, if there are as many."""
_SECURE_READ = 16 * 1024
"""Bytes that TLS may have read before it was asked for them."""
_FRESH = 1.0
"""Seconds after a handshake in which the request that it was made for is on its way."""
_LINGER = 2.0
"""Seconds that a client may go on sending what nobody reads, so that it gets to read its answer."""
_GONE_AFTER = 0.4
_PATIENCE = 1.0
"""Seconds without reading, after which a client may have gone without our kernel telling."""
_ASK_AGAIN = 10.0
_TCP_CLOSE = 7
_RESET = struct.pack("ii", 1, 0)
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)
"""Seconds of silence, and how often a reader that says nothing is asked before it counts as gone."""
NEVER = float("inf")


class Handler(Protocol):
    """What answers the request under way."""

    def client_data(self, data: bytes) -> None:
        """Bytes came behind the head."""

    def client_eof(self) -> None:
        """The client sends nothing more."""

    def client_lost(self) -> None:
        """The client is gone."""

    def client_writable(self, writable: bool) -> None:
        """The client takes more, or has enough for now."""


class Client(Reading):
    """One connection."""

    __slots__ = (
        "_ask_at", "_buffer", "_eof_at", "_forwarded", "_forwarded_plan", "_fresh_until", "_kept", "_lingering",
        "_paused_at", "_raw", "_seen", "_stalled_at", "_stalled_size", "_write", "believed", "closed", "due",
        "handler", "keep_alive", "last_data", "patience", "peer", "reading", "secure", "transport", "worker",
    )  # fmt: skip

    def __init__(self, worker: "Worker") -> None:
        self.worker = worker
        # Of the connection.
        self.transport: asyncio.Transport | None = None
        self._raw: asyncio.Transport | None = None
        """What is below TLS."""
        self._fresh_until = 0.0
        self.peer = ""
        self.secure = False
        self.believed = False
        self.closed = False
        self.due = NEVER
        self._eof_at = 0.0
        self._ask_at = 0.0
        self._lingering = False
        # Of reading.
        self.reading = True
        self._paused_at = 0.0
        self.last_data = 0.0
        self._buffer = b""
        self._seen = 0
        self._kept = b""
        # Of the exchange under way.
        self.handler: Handler | None = None
        self.keep_alive = True
        self.patience = worker.host.body_timeout
        """Seconds in which it takes `_LEAST` bytes of its answer, or what there is."""
        self._stalled_at = 0.0
        self._stalled_size = 0
        self._forwarded = b""
        self._forwarded_plan: Plan | None = None

    # --- the connection ---------------------------------------------------------------------------------------

    def knock(self, raw: asyncio.Transport) -> bool:
        """A connection is there whose handshake begins; False if it is one too many."""
        self.secure = True
        self._raw = raw
        return self.worker.admit(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        worker = self.worker
        now = worker.now()
        self.transport = cast("asyncio.Transport", transport)
        self._write = self.transport.write
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if name else ""
        self.believed = worker.trust.believes(self.peer)
        self.due = now + worker.host.head_timeout
        # Whatever the kernel does not take pauses its source, so that no more than one piece is held here.
        if self.secure:
            # Its limit is reached, not passed; and what it has read waits for `data_received` in the clear alone.
            self.transport.set_write_buffer_limits(1, 0)
            self.transport.set_read_buffer_limits(_SECURE_READ)  # type: ignore[attr-defined]
            self._fresh_until = now + _FRESH
            return
        self.transport.set_write_buffer_limits(0)
        if not worker.admit(self):
            self.keep_alive = False
            self.refuse_plainly(worker.too_many_connections())

    def connection_lost(self, _error: Exception | None) -> None:
        self.closed = True
        self.worker.clients.discard(self)
        handler, self.handler = self.handler, None
        if handler is not None:
            handler.client_lost()

    def eof_received(self) -> bool:
        # True keeps our side open: who has sent all may still want to read.
        self._eof_at = self.worker.now()
        if self.handler is not None:
            if not self._kept:
                self.keep_alive = False
            self.handler.client_eof()
            return not self.secure
        if self._kept:
            # Requests that wait for their turn: the last of them closes.
            return not self.secure
        self.close()
        return False

    def pause_writing(self) -> None:
        self._stalled_at = self.worker.now()
        self._stalled_size = self._unsent()
        if self.handler is not None:
            self.handler.client_writable(False)

    def resume_writing(self) -> None:
        self._stalled_at = 0.0
        if self.handler is not None:
            self.handler.client_writable(True)
        elif self._kept:
            self.worker.soon(self._go_on)

    def data_received(self, data: bytes) -> None:
        if self.handler is not None:
            self.last_data = self.worker.now()
            self.handler.client_data(data)
        elif self._lingering:
            pass
        elif self._kept or self._stalled_at:
            # What came first is next; and who does not read gets no further answer to be held here.
            self.keep(data)
        elif self._buffer:
            self._buffer += data
            self._next(self._buffer)
        else:
            self._next(data)

    # --- requests ---------------------------------------------------------------------------------------------

    def _next(self, data: bytes) -> None:
        """Begin the request at the beginning of `data`."""
        worker = self.worker
        end = data.find(b"\r\n\r\n")
        plan = worker.plans.known.get(data[: end + 4]) if end > 0 else None
        try:
            if plan is None:
                head = parse_request(data, worker.host.max_head, self._seen)
                if head is None:
                    if not self._buffer:
                        self.due = worker.now() + worker.host.head_timeout
                    self._buffer, self._seen = data, len(data)
                    if self._eof_at:
                        self.close()
                    return
                self.keep_alive = head.keep_alive and not worker.retiring
                self._buffer, self._seen = b"", 0
                rest = data[head.size :]
                try:
                    plan = worker.plans.learn(data[: head.size], head)
                except SandpostError as error:
                    if len(rest) < head.body.length or not (head.body.empty or head.body.length):
                        self.keep_alive = False
                    origin = any(name == b"origin" for name, _ in head.headers)
                    self._refuse_head(error, head.method, head.minor, rest[head.body.length :], origin=origin)
                    return
            else:
                self._buffer, self._seen = b"", 0
                self.keep_alive = plan.head.keep_alive and not worker.retiring
                rest = data[plan.size :]
        except MalformedRequest as error:
            self._buffer = b""
            self.keep_alive = False
            self._refuse_head(error, "GET", 1, b"", origin=False)
            return
        self.due = NEVER
        self._begin(plan, rest)

    def _begin(self, plan: Plan, rest: bytes) -> None:
        worker = self.worker
        try:
            way = plan.way
            if way is Way.CODE:
                if plan.epoch != worker.access.epoch:
                    self.judge(plan)
                length = plan.length
                if len(rest) >= length and not plan.chunked:
                    code = rest[:length] if len(rest) > length else rest
                    if len(rest) > length:
                        self.keep(rest[length:])
                    settings = plan.settings
                    assert settings is not None
                    if length > settings.limits.code:
                        raise code_too_large(settings.limits.code)
                    program = worker.program_of(plan, code)
                    Call(worker, self, plan, program.id, program).start()
                else:
                    gathering = Gathering(self, plan)
                    gathering.client_data(rest)
                    if self._eof_at and self.handler is gathering:
                        gathering.client_eof()
            elif way is Way.CALL:
                if plan.epoch != worker.access.epoch:
                    self.judge(plan)
                call = Call(worker, self, plan, plan.code_hash, None)
                call.start()
                if rest and not call.done:
                    call.client_data(rest)
                elif rest and plan.head.body.empty:
                    self.keep(rest)
            elif way is Way.API:
                passage = Passage(worker, self, plan)
                passage.start()
                if rest and not passage.done:
                    passage.client_data(rest)
                elif rest and plan.head.body.empty:
                    self.keep(rest)
            else:
                self._answer_here(plan, rest)
        except SandpostError as error:
            complete = plan.body_in(rest)
            self._kept = rest[plan.length :] if complete else b""
            self.turn_away(error, plan, read_to_end=complete)

    def judge(self, plan: Plan) -> None:
        """Look whether the plan's key is good; raise what refuses it."""
        access = self.worker.access
        plan.settings = access.judge(plan.name, plan.key)
        if plan.way is Way.CODE:
            check_code_type(plan)
        plan.epoch = access.epoch

    def _answer_here(self, plan: Plan, rest: bytes) -> None:
        worker, head = self.worker, plan.head
        complete = plan.body_in(rest)
        self._kept = rest[plan.length :] if complete else b""
        self.keep_alive = self.keep_alive and complete
        if plan.way is Way.PREFLIGHT:
            answer = preflight_answer(head.headers, minor=head.minor, keep_alive=self.keep_alive, date=worker.date)
        else:
            status, body = health.report(worker, live=plan.name == "live")
            answer = json_answer(
                status,
                body,
                [(b"content-type", b"application/json"), (b"cache-control", b"no-store")],
                method=head.method,
                minor=head.minor,
                keep_alive=self.keep_alive,
                date=worker.date,
                origin=plan.origin,
            )
        self.write(answer)
        self.answered(read_to_end=complete)

    def forwarded(self, plan: Plan) -> bytes:
        """Return the X-Forwarded-* lines of a request of this connection."""
        if self._forwarded_plan is plan:
            return self._forwarded
        fields = forwarded.headers(
            plan.head.headers, believed=self.believed, peer=self.peer, secure=self.secure, host=plan.host
        )
        self._forwarded = b"".join(b"%b: %b\r\n" % field for field in fields)
        self._forwarded_plan = plan
        return self._forwarded

    # --- what exchanges use -----------------------------------------------------------------------------------

    def write(self, data: Piece) -> None:
        """Send."""
        if not self.closed:
            self._write(data)

    def keep(self, data: bytes) -> None:
        """Keep what came behind the request under way; beyond a bound nothing more is read."""
        self._kept += data
        if len(self._kept) > _MAX_KEPT:
            self.pause_reading()

    def take_kept(self) -> bytes:
        """Return what `keep` kept."""
        kept, self._kept = self._kept, b""
        return kept

    def pause_reading(self) -> None:
        """Read nothing for now."""
        if self.reading and self.transport is not None and not self.closed:
            self.reading = False
            self._paused_at = self.worker.now()
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again, unless enough is kept."""
        if self.reading or self.transport is None or self.closed:
            return
        # What came behind the request under way is enough for now, whoever could take more.
        if len(self._kept) <= _MAX_KEPT:
            self.reading = True
            self.last_data = self.worker.now()
            self.transport.resume_reading()

    def expect_stream(self, patience: float) -> None:
        """Prepare for an answer without an end: its reader may rest for `patience` seconds, and one that has vanished
        without a word is noticed also while there is nothing to be sent.
        """
        self.patience = patience
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                for level, option, value in _KEEP_ALIVE:
                    sock.setsockopt(level, option, value)

    def stays(self) -> bool:
        """Whether the connection goes on after the exchange under way."""
        return self.keep_alive

    def answered(self, *, read_to_end: bool) -> None:
        """The exchange is over and all of its answer has been written."""
        self.handler = None
        self.patience = self.worker.host.body_timeout
        if self.closed:
            return
        if not self.keep_alive or not read_to_end or (self._eof_at and not self._kept):
            self._end(linger=not read_to_end or bool(self._kept))
            return
        worker = self.worker
        self._ask_at = 0.0
        if not self._kept:
            self.due = worker.clock + worker.host.keep_alive
        elif not self._stalled_at:
            worker.soon(self._go_on)
        if not self.reading:
            self.resume_reading()
        elif len(self._kept) > _MAX_KEPT:
            self.pause_reading()

    def _go_on(self) -> None:
        """Begin the request that has waited."""
        if self.handler is not None or self.closed or self._lingering or self._stalled_at:
            return
        data = self._buffer + self.take_kept()
        if not data:
            return
        self.resume_reading()
        self._next(data)
        if len(self._kept) > _MAX_KEPT:
            self.pause_reading()

    def tell(self, status: int, body: bytes, extra: list[tuple[bytes, bytes]], plan: Plan, read_to_end: bool) -> None:
        """Write a whole answer with `body` and end the exchange."""
        self.keep_alive = self.keep_alive and read_to_end
        head = plan.head
        self.write(
            json_answer(
                status,
                body,
                extra,
                method=head.method,
                minor=head.minor,
                keep_alive=self.keep_alive,
                date=self.worker.date,
                origin=plan.origin,
            )
        )
        self.answered(read_to_end=read_to_end)

    def turn_away(self, error: SandpostError, plan: Plan, *, read_to_end: bool) -> None:
        """Refuse a request that nothing has begun to answer."""
        worker = self.worker
        req_id = worker.next_id()
        is_call = plan.way in {Way.CODE, Way.CALL}
        # Whose key did not fit does not write into the tenant's stream.
        tenant = plan.name if is_call and plan.settings is not None and plan.epoch == worker.access.epoch else ""
        worker.told.refused(tenant, req_id, error.status, str(error.to_dict()["reason"]), plan.trace_id)
        self.refuse(error, req_id, plan, read_to_end=read_to_end)

    def refuse(self, error: SandpostError, req_id: str, plan: Plan, *, read_to_end: bool) -> None:
        """Write the answer that tells `error` and end the exchange."""
        if isinstance(error, MalformedRequest | RequestTimeout):
            read_to_end = False
        self.keep_alive = self.keep_alive and read_to_end
        self._write_error(error, req_id, plan.head.method, plan.head.minor, origin=plan.origin)
        self.answered(read_to_end=read_to_end)

    def _refuse_head(self, error: SandpostError, method: str, minor: int, kept: bytes, *, origin: bool) -> None:
        self._kept = kept if self.keep_alive else b""
        self._write_error(error, self._refused(error), method, minor, origin=origin)
        self.answered(read_to_end=self.keep_alive)

    def refuse_plainly(self, error: SandpostError) -> None:
        """Write an error before any request was read, and close."""
        self._write_error(error, self._refused(error), "GET", 1, origin=False)
        self._end(linger=True)

    def _refused(self, error: SandpostError) -> str:
        """Note that something that is no request was refused; return the id that its answer has."""
        req_id = self.worker.next_id()
        self.worker.told.refused("", req_id, error.status, str(error.to_dict()["reason"]))
        return req_id

    def _write_error(self, error: SandpostError, req_id: str, method: str, minor: int, *, origin: bool) -> None:
        worker = self.worker
        worker.counts.reasons[error.to_dict()["reason"]] += 1
        self.write(
            error_answer(
                error,
                req_id,
                method=method,
                minor=minor,
                keep_alive=self.keep_alive,
                date=worker.date,
                origin=origin,
            )
        )

    # --- the end ----------------------------------------------------------------------------------------------

    def _end(self, *, linger: bool) -> None:
        """Close when all is written; with `linger` what the client still sends is read and dropped for a while."""
        transport = self.transport
        if transport is None or self.closed:
            return
        self._kept = self._buffer = b""
        if linger and not self._eof_at and transport.can_write_eof():
            self._lingering = True
            self.handler = None
            self.due = self.worker.now() + _LINGER
            self.resume_reading()
            transport.write_eof()
        else:
            self.close()

    def close(self) -> None:
        """Close when all is written."""
        if self.transport is None:
            self.abort()
        elif not self.closed:
            self.due = self.worker.now() + self.worker.host.body_timeout
            self._lingering = True
            self.transport.close()

    def abort(self) -> None:
        """Close at once."""
        transport = self.transport or self._raw
        if transport is not None and not self.closed:
            transport.abort()

    def break_off(self, *, reset: bool) -> None:
        """End an answer before its end: no last chunk; with `reset` so that nobody takes it for complete."""
        self.handler = None
        self.keep_alive = False
        if not reset:
            self.close()
            return
        if self.transport is not None and not self.closed:
            sock = self.transport.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.transport.abort()

    def is_idle(self) -> bool:
        """Whether it waits between two requests, with nothing read and nothing to be written."""
        return (
            self.handler is None
            and not (self.closed or self._lingering or self._buffer or self._kept or self._eof_at)
            and self.transport is not None
            and not self.transport.is_closing()
            and self._unsent() == 0
            and self.worker.now() >= self._fresh_until
        )

    def _unsent(self) -> int:
        """Return how many bytes wait for the kernel."""
        size = 0 if self.transport is None else self.transport.get_write_buffer_size()
        return size if self._raw is None else size + self._raw.get_write_buffer_size()

    def begin_handover(self) -> int:
        """Stop reading and return a copy of the descriptor, -1 if there is none; `end_handover` takes it back."""
        sock = None if self.transport is None else self.transport.get_extra_info("socket")
        if sock is None:
            return -1
        self.pause_reading()
        return os.dup(sock.fileno())

    def end_handover(self) -> None:
        """Nobody took it: serve it on."""
        self.resume_reading()

    # --- time -------------------------------------------------------------------------------------------------

    def look_after(self, now: float) -> None:
        """End what takes too long (called twice a second)."""
        if self._stalled_at:
            size = self._unsent()
            if size > self._stalled_size:
                self._stalled_size = size
            elif self._stalled_size - size >= _LEAST:
                self._stalled_size, self._stalled_at = size, now
            elif now - self._stalled_at > self.patience:
                # A byte now and then does not keep what waits here.
                self.abort()
                return
        if self.handler is not None and (
            now - self._eof_at > _GONE_AFTER if self._eof_at else not self.reading and now - self._paused_at > _PATIENCE
        ):
            self._look_whether_gone(now)
        if now < self.due or self.handler is not None or (self._stalled_at and not self._lingering):
            return
        if self._lingering:
            self._linger_on(now)
        elif self._buffer:
            self.keep_alive = False
            self.due = NEVER
            self.refuse_plainly(RequestTimeout("the request's head did not come in time: send it without a pause"))
        else:
            self.close()

    def _linger_on(self, now: float) -> None:
        """Its time for the end of the answer is over. If it reads still, it has the patience that any answer has."""
        size = self._unsent()
        if not size:
            self.abort()
            return
        self.due = now + _LINGER
        if not self._stalled_at:
            self._stalled_size, self._stalled_at = size, now

    def _look_whether_gone(self, now: float) -> None:
        """Find out whether a client that sends nothing more, or of which nothing is read, still reads.

        Nothing tells a half-closed connection from a closed one but a byte sent: to one that is closed the other
        kernel answers by a reset. What can be sent without meaning anything is an interim head before the answer, and
        a leading zero of the next chunk's size in it.
        """
        transport = self.transport
        sock = None if transport is None else transport.get_extra_info("socket")
        if sock is None or transport is None:
            return
        with contextlib.suppress(OSError):
            if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
                transport.abort()
                return
        handler = self.handler
        if now >= self._ask_at and isinstance(handler, Call):
            neutral = handler.neutral_bytes()
            if neutral:
                # Zeros would make a size ever longer.
                self._ask_at = NEVER if self._eof_at or handler.head_out else now + _ASK_AGAIN
                self._write(neutral)

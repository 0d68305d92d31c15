"""One request and its answer, streamed both ways between a client's connection and an upstream one.

Bodies are re-framed and never held: what one side does not take pauses the other. Exactly one of `finish` and
`fail` ends an exchange, once; after it no event changes anything.
"""

from typing import TYPE_CHECKING

from sandpost.model.errors import BadGateway, BodyTooLarge, MalformedRequest, RequestTimeout, SandpostError
from sandpost.model.units import format_size
from sandpost.proxy.http1.body import BodyReader, Kind, Piece
from sandpost.proxy.http1.errors import BrokenResponse, malformed
from sandpost.proxy.http1.render import CONTINUE, LAST_CHUNK, answer_framing, chunk, render_response
from sandpost.proxy.http1.response import ResponseHead, parse_response
from sandpost.proxy.plan import Plan

if TYPE_CHECKING:
    from sandpost.proxy.client import Client
    from sandpost.proxy.upstream import Upstream
    from sandpost.proxy.worker import Worker

MAX_RESPONSE_HEAD = 64 * 1024
MAX_INTERIMS = 16
NEVER = float("inf")


class Exchange:
    """Base of calls and of what passes to the api."""

    __slots__ = (
        "_chunked_out", "_client_full", "_ended_clean", "_framing", "_held", "_interims", "_last_head", "_partial",
        "_paused_up", "_writable_up", "answer", "began", "client", "done", "due", "head_out", "limit", "plan", "reader",
        "req_id", "response", "sending", "up", "worker",
    )  # fmt: skip

    def __init__(self, worker: "Worker", client: "Client", plan: Plan) -> None:
        self.worker = worker
        self.client = client
        self.plan = plan
        self.req_id = worker.next_id()
        self.began = worker.now()
        self.due = NEVER
        self.done = False
        self.up: Upstream | None = None
        # The request's body.
        self.reader: BodyReader | None = None
        self.sending = False
        self.limit = 0
        self._chunked_out = False
        self._held: list[bytes] = []
        self._writable_up = True
        # The answer.
        self.response: ResponseHead | None = None
        self.answer: BodyReader | None = None
        self.head_out = False
        self._framing = Kind.NONE
        self._partial = b""
        self._last_head = b""
        self._interims = 0
        self._client_full = False
        self._paused_up = False
        self._ended_clean: bool | None = None
        """How the upstream connection has ended, while what came before is still being read."""

    # --- what a kind of exchange decides ----------------------------------------------------------------------

    def on_head(self, head: ResponseHead, rest: bytes) -> None:
        """The final head of the answer came, with the first bytes behind it."""
        raise NotImplementedError

    def lost_before_head(self) -> None:
        """The upstream connection ended before the answer's head was complete."""
        raise NotImplementedError

    def released(self, reusable: bool, /) -> None:
        """The exchange is over: give back the connection and what else was taken."""
        raise NotImplementedError

    def ending(self) -> None:
        """The answer's last bytes go out next: who has read them may call again at once, through another worker."""

    def ended(self, status: int) -> None:
        """Count what the caller got; 0: nothing complete."""

    def passed_in(self, size: int) -> None:
        """Count bytes of the request's body."""

    def passed_out(self, size: int) -> None:
        """Count bytes of the answer."""

    # --- the request's body -----------------------------------------------------------------------------------

    def expect_body(self, limit: int) -> None:
        """Prepare for the request's body of at most `limit` bytes (0: any)."""
        body = self.plan.head.body
        if body.empty:
            return
        self.limit = limit
        if limit and body.length > limit:
            raise self._too_large()
        self._chunked_out = body.kind is Kind.CHUNKED
        self.reader = BodyReader(body, malformed)

    def begin_body(self) -> None:
        """The upstream side takes the body from now on."""
        if self.sending or self.reader is None:
            return
        self.sending = True
        if self.plan.head.expect_continue and not self._held and not self.reader.received:
            self.client.write(CONTINUE)
        self.client.last_data = self.worker.now()
        held, self._held = self._held, []
        for data in held:
            if self.done:
                return
            self.client_data(data)
        self._balance()

    def client_data(self, data: bytes) -> None:
        """Bytes came from the client."""
        reader = self.reader
        if reader is None or reader.finished:
            self.client.keep(data)
            return
        if not self.sending:
            self._held.append(data)
            self.client.pause_reading()
            return
        try:
            pieces = reader.feed(data)
        except MalformedRequest as error:
            self.fail(error)
            return
        if self.limit and reader.received > self.limit:
            self.fail(self._too_large())
            return
        self._send(pieces, finished=reader.finished)
        if reader.behind and not self.done:
            self._balance()
            self.worker.soon(self._read_on)
        if reader.excess and not self.done:
            self.client.keep(reader.excess)

    def _read_on(self) -> None:
        """Go on with a body that came in many small chunks."""
        reader = self.reader
        if self.done or reader is None or not reader.behind:
            return
        self.client_data(b"")
        # What stands behind the body may be so much that no more of it is to be read.
        if not self.done and not reader.excess:
            self._balance()

    def client_eof(self) -> None:
        """The client sends nothing more; it may still read."""
        while self.sending and self.reader is not None and self.reader.behind and not self.done:
            self.client_data(b"")
        if self.reader is not None and not self.reader.finished:
            self.client_lost()

    def client_lost(self) -> None:
        """The client is gone."""
        if self.done:
            return
        self.done = True
        self.worker.counts.clients_gone += 1
        self.ended(0)
        self._release(reusable=False)
        self.client.abort()

    def client_writable(self, writable: bool) -> None:
        """The client takes more, or has enough for now."""
        self._client_full = not writable
        self._balance_up()

    def body_complete(self) -> bool:
        """Whether the request has been read to its end."""
        return self.reader is None or self.reader.finished

    def _drop_held(self) -> None:
        """Read to the end of a body that nobody will get, if it is here: then the connection can go on."""
        reader, held = self.reader, self._held
        self._held = []
        if reader is None or self.sending or self.plan.head.expect_continue:
            return
        try:
            for data in held:
                reader.feed(data)
        except MalformedRequest:
            return
        # One in many small chunks is not worth the work: it does not count as read.
        if reader.excess:
            self.client.keep(reader.excess)

    def _send(self, pieces: list[Piece], *, finished: bool) -> None:
        up = self.up
        if up is None or up.transport is None:
            return
        write = up.transport.write
        if self._chunked_out:
            framed = [chunk(piece) for piece in pieces if piece]
            if finished:
                framed.append(LAST_CHUNK)
            if framed:
                write(b"".join(framed))
        else:
            for piece in pieces:
                write(piece)
        self.passed_in(sum(map(len, pieces)))

    def _too_large(self) -> BodyTooLarge:
        shown = format_size(self.limit)
        return BodyTooLarge(
            f"the body is longer than this tenant's limit of {shown}: send less, or raise `limits.body`",
            limit=self.limit,
            setting="limits.body",
        )

    # --- the upstream side ------------------------------------------------------------------------------------

    def up_writable(self, writable: bool) -> None:
        """The upstream side takes more, or has enough for now."""
        self._writable_up = writable
        self._balance()

    def _balance(self) -> None:
        reader = self.reader
        if self._writable_up and (reader is None or (self.sending and not reader.behind)):
            self.client.resume_reading()
        else:
            self.client.pause_reading()

    def up_data(self, data: bytes) -> None:
        """Bytes came from the upstream side."""
        answer = self.answer
        if answer is None:
            self._read_head(data)
            return
        try:
            pieces = answer.feed(data)
        except BrokenResponse as error:
            self.fail(error)
            return
        if answer.finished:
            self.ending()
        self._pass(pieces, finished=answer.finished)
        if answer.finished:
            # What follows a whole answer belongs to nobody and ends this connection alone.
            self.finish(reusable=not answer.excess)
        elif answer.behind:
            self._answer_later()

    def _answer_later(self) -> None:
        self._balance_up()
        self.worker.soon(self._answer_on)

    def _answer_on(self) -> None:
        """Go on with an answer that came in many small chunks."""
        if not self.reads_on():
            return
        self.up_data(b"")
        if self._ended_clean is not None and not self.reads_on():
            self.up_lost(self._ended_clean)
        self._balance_up()

    def reads_on(self) -> bool:
        """Whether what has come of the answer is still being read."""
        return not self.done and self.answer is not None and self.answer.behind

    def _balance_up(self) -> None:
        transport = None if self.up is None else self.up.transport
        if self.done or transport is None or transport.is_closing():
            return
        pause = self._client_full or self.reads_on()
        if pause != self._paused_up:
            self._paused_up = pause
            if pause:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def up_lost(self, clean: bool) -> None:
        """The upstream connection has ended."""
        self.up = None
        if self.reads_on():
            self._ended_clean = clean
            return
        if self.done:
            return
        answer = self.answer
        if answer is None:
            self.lost_before_head()
            return
        if not clean:
            self.fail(BrokenResponse("the connection broke before the answer's end"))
            return
        try:
            answer.eof()
        except BrokenResponse as error:
            self.fail(error)
            return
        self.ending()
        self._pass([], finished=True)
        self.finish(reusable=False)

    def _read_head(self, data: bytes) -> None:
        seen = len(self._partial)
        if seen:
            data = self._partial + data
        head_plan = self.plan.head
        while True:
            try:
                head = parse_response(data, MAX_RESPONSE_HEAD, head_plan.method, head_plan.upgrade, seen)
            except BrokenResponse as error:
                self.fail(error)
                return
            if head is None:
                self._partial = data
                return
            if not head.interim:
                break
            self._interims += 1
            if self._interims > MAX_INTERIMS:
                self.fail(BrokenResponse(f"more than {MAX_INTERIMS} interim heads"))
                return
            if head.status == 100:
                self.begin_body()
            if self.done:
                return
            data, seen = data[head.size :], 0
        self._partial = b""
        self._last_head = data[: head.size]
        rest = data[head.size :] if len(data) > head.size else b""
        try:
            self.on_head(head, rest)
        except (BrokenResponse, ValueError) as error:
            self.fail(error if isinstance(error, BrokenResponse) else BrokenResponse("a header contains a line end"))

    def start_answer(
        self, head: ResponseHead, rest: bytes, extra: list[tuple[bytes, bytes]], drop: frozenset[bytes]
    ) -> bytes:
        """Send the answer's head and what has come of its body; return the head as it went out.

        Raises `BrokenResponse` while nothing has gone out.
        """
        reader = BodyReader(head.body, BrokenResponse)
        pieces = reader.feed(rest) if rest else []
        if reader.excess:
            raise BrokenResponse("bytes follow the end of the answer")
        self._drop_held()
        client, asked = self.client, self.plan.head
        framing = answer_framing(head.body, asked.minor)
        if not self.body_complete() or framing.kind is Kind.UNTIL_CLOSE:
            client.keep_alive = False
        rendered = render_response(
            head.status,
            head.headers,
            framing=framing,
            minor=asked.minor,
            keep_alive=client.stays(),
            method=asked.method,
            date=self.worker.date,
            extra=extra,
            drop=drop,
        )
        self.response = head
        self.answer = reader
        self.head_out = True
        self._framing = framing.kind
        framed = self._framed(pieces, finished=reader.finished)
        if reader.finished:
            self.ending()
        client.write(b"".join([rendered, *framed]) if framed else rendered)
        self.passed_out(sum(map(len, pieces)))
        if reader.finished:
            self.finish(reusable=True)
        elif reader.behind:
            self._answer_later()
        return rendered

    def _framed(self, pieces: list[Piece], *, finished: bool) -> list[Piece]:
        if self._framing is not Kind.CHUNKED:
            return pieces
        framed: list[Piece] = [chunk(piece) for piece in pieces if piece]
        if finished:
            framed.append(LAST_CHUNK)
        return framed

    def _pass(self, pieces: list[Piece], *, finished: bool) -> None:
        framed = self._framed(pieces, finished=finished)
        if len(framed) == 1:
            self.client.write(framed[0])
        elif framed:
            self.client.write(b"".join(framed))
        self.passed_out(sum(map(len, pieces)))

    # --- the end ----------------------------------------------------------------------------------------------

    def finish(self, *, reusable: bool) -> None:
        """The answer is complete."""
        if self.done:
            return
        self.done = True
        response = self.response
        status = 0 if response is None else response.status
        self.ended(status)
        complete = self.body_complete()
        # A body that was read here and never sent on would stand before the next call's head.
        sent = self.reader is None or self.sending
        reusable = reusable and complete and sent and response is not None and response.keep_alive
        up = self.up
        if reusable and up is not None and up.transport is not None:
            if self._paused_up:
                up.transport.resume_reading()
            # A body that the program did not read may still wait here, before the next call's head.
            reusable = self.reader is None or up.transport.get_write_buffer_size() == 0
        self._release(reusable=reusable)
        self.client.answered(read_to_end=complete)

    def fail(self, error: SandpostError) -> None:
        """Tell the caller, or break the answer off if its head is out."""
        if self.done:
            return
        self.done = True
        self._drop_held()
        self._release(reusable=False)
        if self.head_out:
            self.ended(0)
            self.worker.counts.broken_off += 1
            self.client.break_off(reset=self._framing is Kind.UNTIL_CLOSE)
            return
        self.ended(error.status)
        self.client.refuse(error, self.req_id, self.plan, read_to_end=self.body_complete())

    def look_after(self, now: float) -> None:
        """Check the client's pace (called twice a second)."""
        if self.done or not self.sending or self.body_complete():
            return
        client = self.client
        if client.reading and now - client.last_data > self.worker.host.body_timeout:
            self.fail(RequestTimeout("the request's body stopped coming: send it without a pause"))

    def cut(self) -> None:
        """End it now: the worker stops."""
        self.worker.counts.streams_cut += 1
        self.fail(BadGateway("the proxy stopped before the answer was complete; the call was not run again"))

    def timed_out(self) -> None:
        """`due` has passed."""
        self.fail(BadGateway("no complete answer came in time"))

    def _release(self, *, reusable: bool) -> None:
        self.released(reusable)
        self.worker.exchanges.discard(self)

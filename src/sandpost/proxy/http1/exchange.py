"""One request and its answer on a client's connection, and when that connection may serve another (RFC 9112 section 9).

A connection is idle, or it has exactly one `Exchange`. Pipelined requests wait as bytes until the exchange before them
is over, so answers keep their order. An exchange has two sides that end independently:

    request   BODY --last byte--> DONE
    answer    WAITING --answer()--> STREAMING --answered()--> After.NEXT | After.DRAIN | After.CLOSE

What follows an answer:

- CLOSE, if either side said so, if the answer ends with the connection, switched protocols or was broken off, or if the
  client still waits for `100 Continue`: it may then send its body or not, and what comes could be read both ways.
- NEXT, if the whole request has been read: `excess` begins the next head.
- DRAIN, if some of the request's body is still to come, and that can be no more than `MAX_DRAIN` or is not known. It is
  read and thrown away by `drain`, which ends in NEXT, or in CLOSE when it was more.

Whether the connection goes on is decided when the answer's head is rendered, since that head says it.
"""

from typing import Final, Literal

from sandpost.proxy.http1.body import Body, BodyReader, Kind, Piece
from sandpost.proxy.http1.errors import malformed
from sandpost.proxy.http1.render import answer_framing
from sandpost.proxy.http1.request import RequestHead
from sandpost.proxy.http1.response import ResponseHead

MAX_DRAIN = 65_536
"""Bytes of an unread request body that are read for the sake of keeping the connection."""


class After:
    """What becomes of the connection."""

    NEXT: Final = "next"
    DRAIN: Final = "drain"
    CLOSE: Final = "close"


Next = Literal["next", "drain", "close"]

# How far the answer is.
_WAITING: Final = 0
_STREAMING: Final = 1
_DONE: Final = 2


class Exchange:
    """The state of one exchange with a client. Calls out of order raise RuntimeError: they are faults of ours."""

    __slots__ = ("_answer", "_drain_from", "_reader", "_said_continue", "ending", "head", "keep_alive")

    def __init__(self, head: RequestHead, *, ending: bool = False) -> None:
        self.head = head
        self.ending = ending
        """Set it when the connection shall end with the next answer that begins (a worker that stops)."""
        self.keep_alive = False
        """What the answer's head must say; valid from `answer` on."""
        self._reader = BodyReader(head.body, malformed)
        self._answer: int = _WAITING
        self._said_continue = not head.expect_continue
        self._drain_from = 0

    @property
    def request_done(self) -> bool:
        """Whether the request has been read to its end."""
        return self._reader.finished

    @property
    def received(self) -> int:
        """Bytes of the request's body so far."""
        return self._reader.received

    @property
    def excess(self) -> bytes:
        """What came behind the request: the beginning of the next one."""
        return self._reader.excess

    def receive(self, data: bytes) -> list[Piece]:
        """Take bytes of the request's body; raises `MalformedRequest`, after which only CLOSE is left."""
        if data:
            # A client that sends its body unasked waits for nothing any more.
            self._said_continue = True
        return self._reader.feed(data)

    def client_ended(self) -> None:
        """Say that the client sends nothing more; raises `MalformedRequest` if its request is incomplete."""
        self._reader.eof()
        self.ending = True

    def take_continue(self) -> bool:
        """Return True once: if `100 Continue` must be sent before the body is waited for."""
        if self._said_continue or self._answer is not _WAITING:
            return False
        self._said_continue = True
        return True

    def answer(self, body: Body) -> Body:
        """Say that the answer begins; returns its framing towards this client and decides `keep_alive`."""
        if self._answer is not _WAITING:
            raise RuntimeError("the answer has begun already")
        self._answer = _STREAMING
        framing = answer_framing(body, self.head.minor)
        self.keep_alive = (
            self.head.keep_alive
            and not self.ending
            and framing.kind is not Kind.UNTIL_CLOSE
            and self._said_continue
            and self._unread() <= MAX_DRAIN
        )
        return framing

    def answered(self) -> Next:
        """Say that the answer is complete; returns what comes next."""
        if self._answer is not _STREAMING:
            raise RuntimeError("no answer has begun")
        self._answer = _DONE
        if not self.keep_alive:
            return After.CLOSE
        self._drain_from = self._reader.received
        return After.NEXT if self._reader.finished else After.DRAIN

    def drain(self, data: bytes) -> Next:
        """Throw away body bytes after `answered` said DRAIN; raises `MalformedRequest`."""
        if self._answer is not _DONE:
            raise RuntimeError("the answer is not complete")
        self._reader.feed(data)
        if self._reader.received - self._drain_from > MAX_DRAIN:
            return After.CLOSE
        return After.NEXT if self._reader.finished else After.DRAIN

    def _unread(self) -> int:
        """Return how many body bytes are known to come; 0 of a chunked body, whose length is not known."""
        if self.head.body.kind is Kind.LENGTH:
            return self.head.body.length - self._reader.received
        return 0


def reusable(response: ResponseHead, reader: BodyReader, *, request_sent: bool) -> bool:
    """Whether a sandbox's connection may carry another call of the same tenant.

    Only if the whole request went out, the whole answer came in, neither side announced an end and not one byte came
    behind the answer.
    """
    return request_sent and response.keep_alive and reader.finished and not reader.excess

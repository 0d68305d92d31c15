"""One request and its answer on a connection: what has been sent of it, and what may still be."""

from __future__ import annotations

from .head import is_name, is_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol

    from .body import Body
    from .connection import Connection
    from .head import Head

    class Owner(Protocol):
        """Whoever answers."""

        def over(self) -> None:
            """The exchange has ended: answered, or its client is gone. May come twice."""


_PHRASES = {
    200: b"OK", 201: b"Created", 202: b"Accepted", 204: b"No Content", 206: b"Partial Content",
    301: b"Moved Permanently",
    302: b"Found", 303: b"See Other", 304: b"Not Modified", 307: b"Temporary Redirect", 308: b"Permanent Redirect",
    400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found", 405: b"Method Not Allowed",
    409: b"Conflict", 410: b"Gone", 413: b"Content Too Large", 415: b"Unsupported Media Type", 418: b"I'm a teapot",
    422: b"Unprocessable Content", 426: b"Upgrade Required", 429: b"Too Many Requests", 500: b"Internal Server Error",
    501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout",
}  # fmt: skip
WIRE = b"x-sandpost-wire: 1\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
MALFORMED = (
    b"HTTP/1.1 400 Bad Request\r\nx-sandpost-wire: 1\r\nx-sandpost-error: bad_request\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)
SOURCE_WEBTASK = b"x-sandpost-source: webtask\r\n"
_FRAMING = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection", "te"})
"""What the runtime says itself."""


class Notice:
    """Header line that asks for a successor of this sandbox, once it is needed."""

    replace = b""

    @classmethod
    def ask(cls) -> None:
        """Ask for one, on each answer from now on."""
        cls.replace = b"x-sandpost-replace: 1\r\n"


class AnswerError(ValueError):
    """What a program wants to answer is no answer of HTTP."""


class ClientGoneError(ConnectionResetError):
    """Nobody reads the answer any more, or sends the rest of the body."""


def plain_status(status: Any) -> int:
    """Return it as a plain number, for an `http.HTTPStatus` too; 0 for what is none."""
    if type(status) is bool or not issubclass(type(status), int):
        return 0
    # A subclass may be the program's.
    return int.__int__(status)


def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %s\r\n" % (status, _PHRASES.get(status, b"Status"))


class Exchange:
    """`started`: its head is out. `gone`: its client is. All of it is for the loop."""

    __slots__ = (
        "_bodiless", "_chunked", "_connection", "_left", "_sends", "body", "close", "continued", "finished", "gone",
        "head", "owner", "started",
    )  # fmt: skip

    def __init__(self, connection: Connection, head: Head, body: Body) -> None:
        self._connection = connection
        self.head = head
        self.body = body
        self.owner: Owner | None = None
        self.started = False
        self.finished = False
        self.gone = False
        self.continued = False
        self.close = head.close or head.upgrade
        self._bodiless = head.method == "HEAD"
        self._chunked = False
        self._left = -1
        self._sends = 0

    @property
    def connection(self) -> Connection:
        """What it is on."""
        return self._connection

    def go_on(self) -> None:
        """Have the client send its body, if it waits to be told."""
        if self.head.expects and not self.continued:
            self.continued = True
            self._connection.write(CONTINUE)

    def whole(self, status: int, lines: bytes, body: bytes) -> bytes:
        """Render an answer of the runtime's own."""
        if self.head.expects and not self.continued:
            # The body may follow or not.
            self.close = True
        parts = [_status_line(status), WIRE, lines, Notice.replace]
        if self.close:
            parts.append(b"connection: close\r\n")
        elif self.head.http10:
            parts.append(b"connection: keep-alive\r\n")
        if status != 204:
            parts.append(b"content-length: %d\r\n" % len(body))
        parts.append(b"\r\n")
        if not self._bodiless:
            parts.append(body)
        return b"".join(parts)

    def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """Answer with what the runtime says itself; `lines` are whole header lines."""
        if self.started or self.finished:
            return
        self.started = True
        self._connection.write(self.whole(status, lines, body))
        self._end()

    def begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Send the head of a program's answer. Raises `AnswerError`."""
        if self.started:
            raise AnswerError("the head of the answer has been sent")
        said, status = status, plain_status(status)
        if not 200 <= status <= 999:
            raise AnswerError(f"{said!r} cannot be the status of an answer: use 200 to 599")
        length: str | None = None
        lines = []
        for name, value in headers:
            low = name.lower()
            if not is_name(name):
                raise AnswerError(f"{name!r} cannot be the name of a header")
            if not is_value(value):
                raise AnswerError(f"{value!r} cannot be the value of header {name!r}")
            if low == "content-length":
                if not (value.isascii() and value.isdecimal()) or length not in {None, value}:
                    raise AnswerError(f"{value!r} cannot be a content-length")
                length = value
            elif low in _FRAMING or low.startswith("x-sandpost-"):
                continue
            lines.append(f"{name}: {value}\r\n")
        try:
            told = "".join(lines).encode("latin-1")
        except UnicodeEncodeError as error:
            raise AnswerError(f"{error.object[error.start]!r} cannot be in a header: encode it") from None
        parts = [_status_line(status), WIRE, SOURCE_WEBTASK, Notice.replace, told]
        if self.head.expects and not self.continued:
            self.close = True
        self._bodiless = self._bodiless or status in {204, 304}
        if length is not None:
            self._left = int(length)
        elif self.head.http10:
            self.close = True
        elif status not in {204, 304}:
            parts.append(b"transfer-encoding: chunked\r\n")
            self._chunked = True
        if self.close:
            parts.append(b"connection: close\r\n")
        elif self.head.http10:
            parts.append(b"connection: keep-alive\r\n")
        parts.append(b"\r\n")
        self.started = True
        self._connection.write(b"".join(parts))

    def write(self, data: bytes) -> None:
        """Send a part of the body. Raises `AnswerError` for more than the content-length says."""
        if self.finished or not data or self._bodiless:
            return
        if self._left >= 0:
            if len(data) > self._left:
                said = self._sends + self._left
                raise AnswerError(f"the body is longer than its content-length of {said} bytes")
            self._left -= len(data)
            self._sends += len(data)
        if self._chunked:
            self._connection.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._connection.write(data)

    def end(self) -> None:
        """The body is whole. Raises `AnswerError` for less than the content-length says."""
        if self.finished:
            return
        if self._left > 0 and not self._bodiless:
            raise AnswerError(f"the body is {self._left} bytes shorter than its content-length")
        if self._chunked and not self._bodiless:
            self._connection.write(b"0\r\n\r\n")
        self._end()

    @property
    def ended(self) -> bool:
        """Nothing can be answered any more: all was, or nobody is there."""
        return self.finished or self.gone

    def break_off(self) -> None:
        """Close before the end that the framing announces, so that nobody takes the answer for whole."""
        if not self.finished:
            self._connection.lost()

    def client_gone(self) -> None:
        """The connection has no other end any more, or will have none."""
        if self.ended:
            return
        self.gone = True
        self.body.broken = not self.body.finished
        if self.owner is not None:
            self.owner.over()
        if self.body.arrived is not None:
            self.body.arrived()

    def _end(self) -> None:
        self.finished = True
        arrived = self.body.arrived
        if not self.body.finished:
            self.body.drop()
        if self.owner is not None:
            self.owner.over()
        if arrived is not None:
            # Whoever waits for more would wait for ever.
            arrived()
        self._connection.exchange_ended()

"""How long a message's body is, and reading one (RFC 9112 sections 6 and 7)."""

import re
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from sandpost.proxy.http1._grammar import MAX_FIELDS, MAX_LENGTH, FieldReader, refuse_controls
from sandpost.proxy.http1.errors import RuleError, malformed

Piece = bytes | memoryview


class Kind:
    """How the end of a body is found. Plain constants: a member of an enum costs ten times the access."""

    NONE: Final = "none"
    LENGTH: Final = "length"
    CHUNKED: Final = "chunked"
    UNTIL_CLOSE: Final = "until_close"


class Body(msgspec.Struct, frozen=True, gc=False):
    """The framing of one body; `length` is its bytes for `LENGTH`, else 0."""

    kind: Literal["none", "length", "chunked", "until_close"]
    length: int = 0

    @property
    def empty(self) -> bool:
        """Whether it is known beforehand that no byte will come."""
        return self.kind is Kind.NONE or (self.kind is Kind.LENGTH and self.length == 0)


NONE = Body(Kind.NONE)
CHUNKED = Body(Kind.CHUNKED)
UNTIL_CLOSE = Body(Kind.UNTIL_CLOSE)

MAX_TRAILERS = 8192
"""Bytes of a trailer section, which is checked and dropped."""

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n")
_SIZE_BEGUN = re.compile(rb"[0-9A-Fa-f]{0,16}|[0-9A-Fa-f]{1,16}\r")
_ZERO_COPY = 4096
"""Slices from here on are views; below it a copy costs less than a view does."""
_MANY = 16
_TURN = 1024
"""Chunks that one `feed` takes: about a millisecond of who serves others too. They may have a byte each."""

_trailers = FieldReader()


# What comes next in a chunked body.
_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILERS: Final = 3


class BodyReader:
    """Takes one body out of the bytes of a connection.

    `feed` returns the content in a few pieces, `finished` says that the end was reached and `excess` holds what came
    behind it. `behind` says that `feed` has stopped before the end of what it was given, many small chunks being in
    it: who serves others too does so first, and goes on with `feed(b"")`. `error` makes the exception for a broken
    rule: `malformed` of a client's body, `BrokenResponse` of a sandbox's. After an exception the reader is of no use
    and the connection must end.

    Chunk extensions are refused though RFC 9112 lets a recipient ignore them: none was ever registered, no client of
    ours sends one, and they are where parsers of chunk lines disagree. Trailers are checked and dropped.
    """

    __slots__ = ("_error", "_kind", "_left", "_pending", "_state", "behind", "excess", "finished", "received")

    def __init__(self, body: Body, error: Callable[[str], Exception] = malformed) -> None:
        self._error = error
        self._kind = body.kind
        self._left = body.length
        self._pending = b""
        self._state = _SIZE
        self.finished = body.empty
        self.behind = False
        self.excess = b""
        self.received = 0
        """Bytes of content so far, framing not counted."""

    def feed(self, data: bytes) -> list[Piece]:
        """Return the content in `data`; views into `data` may be among the pieces, so `data` must not change."""
        if self.finished:
            self.excess += data
            return []
        if self._kind is Kind.CHUNKED:
            try:
                return self._feed_chunked(data)
            except RuleError as broken:
                raise self._error(str(broken)) from None
        size = len(data)
        if self._kind is Kind.LENGTH:
            left = self._left
            if size >= left:
                self.finished = True
                self.received += left
                self._left = 0
                if size == left:
                    return [data]
                self.excess = data[left:]
                return [memoryview(data)[:left]]
            self._left = left - size
        self.received += size
        return [data] if data else []

    def eof(self) -> None:
        """Say that no byte follows. Raises if the body is incomplete; the end of `UNTIL_CLOSE` is this."""
        if self.finished:
            return
        if self._kind is Kind.LENGTH:
            raise self._error(f"the body ended {self._left} bytes before its Content-Length")
        if self._kind is Kind.CHUNKED:
            raise self._error("the chunked body ended before its last chunk")
        self.finished = True

    def _feed_chunked(self, data: bytes) -> list[Piece]:
        if self._pending:
            data = self._pending + data
            self._pending = b""
            self.behind = False
        pieces: list[Piece] = []
        state, left = self._state, self._left
        at = 0
        size = len(data)
        turn = _TURN
        while at < size:
            if state == _SIZE:
                if not turn:
                    self._pending, self.behind = data[at:], True
                    break
                turn -= 1
                match = _SIZE_LINE.match(data, at)
                if match is None:
                    if _SIZE_BEGUN.fullmatch(data, at) is None:
                        raise RuleError("a chunk does not begin with 1 to 16 hexadecimal digits and CR LF")
                    self._pending = data[at:]
                    break
                at = match.end()
                left = int(match[1], 16)
                if left > MAX_LENGTH:
                    raise RuleError("a chunk is longer than 2^63-1 bytes")
                state = _DATA if left else _TRAILERS
            elif state == _DATA:
                end = at + left
                end = min(end, size)
                pieces.append(data[at:end] if end - at < _ZERO_COPY else memoryview(data)[at:end])
                self.received += end - at
                left -= end - at
                at = end
                if not left:
                    state = _DATA_END
            elif state == _DATA_END:
                if not data.startswith(b"\r\n", at):
                    if data[at:] != b"\r":
                        raise RuleError("a chunk's data is not followed by CR LF")
                    self._pending = b"\r"
                    break
                at += 2
                state = _SIZE
            else:
                self._read_trailers(data, at)
                break
        self._state, self._left = state, left
        return pieces if len(pieces) <= _MANY else [b"".join(pieces)]

    def _read_trailers(self, data: bytes, at: int) -> None:
        if data.startswith(b"\r\n", at):
            self.finished = True
            self.excess = data[at + 2 :]
            return
        end = data.find(b"\r\n\r\n", at)
        size = (len(data) if end < 0 else end + 4) - at
        refuse_controls(data, at, min(at + size, at + MAX_TRAILERS))
        if size > MAX_TRAILERS:
            raise RuleError(f"the trailers are longer than {MAX_TRAILERS} bytes")
        if end < 0:
            self._pending = data[at:]
            return
        lines = data[at:end].split(b"\r\n")
        if len(lines) > MAX_FIELDS:
            raise RuleError(f"there are more than {MAX_FIELDS} trailers")
        _trailers.read(lines)
        self.finished = True
        self.excess = data[end + 4 :]

"""Where the body of a request ends, so that nothing after it passes the gate (RFC 9112 sections 6 and 7). Pure."""

import re
from typing import Protocol

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*")
_MAX_LINE = 4096
_MAX_TRAILERS = 64


class BrokenBody(Exception):  # noqa: N818 - it says what is wrong
    """The framing of a body is wrong; its connection ends."""


class Body(Protocol):
    """Counts a body's bytes as they pass."""

    ended: bool
    """Whether the body is over: nothing more belongs to it."""

    def feed(self, data: memoryview) -> int:
        """Take the next bytes; return how many of them belong to the body. `BrokenBody` if its framing is wrong."""


class Length:
    """A body of so many bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = length == 0

    def feed(self, data: memoryview) -> int:
        """Take the next bytes (`Body`)."""
        count = min(len(data), self._left)
        self._left -= count
        self.ended = self._left == 0
        return count


class Chunked:
    """A body in chunks. Lines end with CRLF alone; extensions and trailers pass, bounded."""

    def __init__(self) -> None:
        self.ended = False
        self._left = 0
        """Bytes of the chunk under way, its closing CRLF included."""
        self._line = bytearray()
        self._trailers = -1
        """Lines after the last chunk; -1 before it."""

    def feed(self, data: memoryview) -> int:
        """Take the next bytes (`Body`)."""
        at = 0
        while at < len(data) and not self.ended:
            at += self._skip(data[at:]) if self._left else self._read(data[at:])
        return at

    def _skip(self, data: memoryview) -> int:
        count = min(len(data), self._left)
        # The last two bytes of what is left must be CR LF.
        for offset, wanted in ((self._left - 2, 13), (self._left - 1, 10)):
            if 0 <= offset < count and data[offset] != wanted:
                raise BrokenBody("a chunk is longer than it says")
        self._left -= count
        return count

    def _read(self, data: memoryview) -> int:
        piece = bytes(data[: _MAX_LINE + 2])
        end = piece.find(b"\n")
        self._line += piece if end < 0 else piece[: end + 1]
        if len(self._line) > _MAX_LINE:
            raise BrokenBody("a line between chunks is too long")
        if end < 0:
            return len(piece)
        line, self._line = bytes(self._line), bytearray()
        if not line.endswith(b"\r\n"):
            raise BrokenBody("a line between chunks ends with LF alone")
        self._digest(line[:-2])
        return end + 1

    def _digest(self, line: bytes) -> None:
        if self._trailers >= 0:
            self._trailers += 1
            if not line:
                self.ended = True
            elif self._trailers > _MAX_TRAILERS or _TRAILER.fullmatch(line) is None:
                raise BrokenBody("its trailers are wrong, or too many")
            return
        match = _SIZE.fullmatch(line)
        if match is None:
            raise BrokenBody("a chunk's size is no number")
        size = int(match[1], 16)
        if size:
            self._left = size + 2
        else:
            self._trailers = 0

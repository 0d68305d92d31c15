"""Reads a tar as GNU tar writes it (`--format=gnu`), piece by piece. Pure, bounded, strict.

Only what that program writes for files, folders and links is understood, and nothing is guessed: a header of another
form, a wrong sum, a number that is none, an end that is missing are refused. What an entry may be is `judge`'s affair.
Source: the GNU tar manual, "Basic Tar Format".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

BLOCK = 512
MAX_NAME = 4096
"""Bytes of a name, also of one that does not fit into a header."""
_MAGIC = b"ustar  \0"
_OCTAL = re.compile(rb"[0-7]{1,11}[ \0]*")
_ZEROS = bytes(BLOCK)
_TRAILING = 1 << 16
"""Bytes of zeros behind the end: GNU tar fills up a record of 10 KiB."""
_LONG_NAME, _LONG_LINK = b"L", b"K"


class BadTar(Exception):  # noqa: N818 - it says what is wrong
    """The bytes are not what GNU tar writes; the message ends a sentence about the archive."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One header. `kind` is tar's own letter (`0` a file, `5` a folder); its contents follow as bytes."""

    name: bytes
    kind: bytes
    mode: int
    size: int


class Reader:
    """Feed it pieces of any size; it yields entries, each followed by the pieces of its contents."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = 0
        """Bytes of the present contents that have not come yet."""
        self._padding = 0
        self._long: bytearray | None = None
        """A name that is too long for a header, while it comes."""
        self._name: bytes | None = None
        """That name, for the next header."""
        self._ends = 0
        """Blocks of zeros seen: two are the end."""
        self._trailing = 0

    def feed(self, data: bytes) -> Iterator[Entry | bytes]:
        """Take the next bytes; yield what they complete. Raises `BadTar`."""
        self._buffer += data
        while self._buffer:
            if self._ends == 2:
                self._after_end()
            elif self._left:
                piece = self._take(min(self._left, len(self._buffer)))
                self._left -= len(piece)
                if self._long is None:
                    yield piece
                else:
                    self._long += piece
            elif self._padding:
                self._padding -= len(self._take(min(self._padding, len(self._buffer))))
            elif len(self._buffer) < BLOCK:
                return
            elif (entry := self._header(self._take(BLOCK))) is not None:
                yield entry

    def finish(self) -> None:
        """Say that nothing more comes; `BadTar` if the end has not been read."""
        if self._ends != 2:
            raise BadTar("ends in the middle")

    def _take(self, count: int) -> bytes:
        piece = bytes(self._buffer[:count])
        del self._buffer[:count]
        return piece

    def _after_end(self) -> None:
        self._trailing += len(self._buffer)
        if self._buffer.strip(b"\0") or self._trailing > _TRAILING:
            raise BadTar("goes on behind its end")
        self._buffer.clear()

    def _header(self, block: bytes) -> Entry | None:
        if block == _ZEROS:
            self._ends += 1
            if self._long is not None or self._name is not None:
                raise BadTar("names something that is not there")
            return None
        if self._ends:
            raise BadTar("goes on behind its end")
        if block[257:265] != _MAGIC:
            raise BadTar("is no tar of GNU's form")
        if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 32:
            raise BadTar("has a header with a wrong sum")
        size, kind = _number(block[124:136]), block[156:157]
        if self._long is not None:
            name, self._long = bytes(self._long), None
            if not name.endswith(b"\0") or b"\0" in name[:-1]:
                raise BadTar("has a long name that is none")
            self._name = name[:-1]
        self._left, self._padding = size, -size % BLOCK
        if kind in {_LONG_NAME, _LONG_LINK}:
            if self._name is not None or not 0 < size <= MAX_NAME:
                raise BadTar(f"has a name of more than {MAX_NAME} bytes")
            self._long = bytearray()
            return None
        name, self._name = self._name or block[:100].rstrip(b"\0"), None
        if not name or b"\0" in name:
            raise BadTar("has a name that is none")
        return Entry(name, kind, _number(block[100:108]), size)


def _number(field: bytes) -> int:
    if _OCTAL.fullmatch(field) is None:
        raise BadTar("has a number that is none")
    return int(field.strip(b" \0"), 8)

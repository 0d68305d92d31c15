"""How the local bus writes a segment file, and how it is read again whatever became of it. Pure.

A file is frames with nothing between, each a batch as it was appended (all numbers big-endian):

    bytes  what
    4      `MAGIC`: its first byte is in no UTF-8, so that no record can look like a frame
    4      crc32 of the rest of the head, begun with the stream's seed
    4      crc32 of the lines
    4      moment of the machine's last boot, seconds since the epoch, as this process saw it
    8      offset of the first record
    4      number of records
    4      bytes of the lines
    8      time, milliseconds since the epoch; never less than the frame before has, so that it can be searched
    8      end in the source
    1      length of the source's name, and the name
    ..     the lines

Heads have a sum of their own: the file can be walked without its lines, and with broken lines it is still known which
records they were. The seed is made of the stream's name: a block of another stream that a file system puts here after
a crash is no frame. Within a file offsets have no gap (whoever leaves one begins another file), so a frame belongs
where its offset says; behind damage the next one is believed whose offset fits into the bytes between.

Beside each file lies an index, an entry every `INDEX_STEP` bytes: offset, time and position of a frame, and a
crc32. It is a hint: who uses it looks whether the frame is there, and walks the file if not.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from sandpost.bus.contract import MAX_BATCH, MAX_SOURCE

MAGIC = b"\xffSP\x01"
INDEX_STEP = 64 * 1024
LEAST_LINE = 3
"""Bytes of the shortest record, `{}` and its line end."""

_FIRST = struct.Struct(">4sI")
_REST = struct.Struct(">IIQIIQQB")
_FIXED = _FIRST.size + _REST.size
HEAD_MOST = _FIXED + MAX_SOURCE
FRAME_MOST = HEAD_MOST + MAX_BATCH
_ENTRY = struct.Struct(">QQI")
ENTRY = _ENTRY.size + 4


class Head(NamedTuple):
    """A frame without its lines. `begin`: bytes before the lines; `size`: with them."""

    lines_sum: int
    boot: int
    offset: int
    records: int
    length: int
    time: int
    end: int
    source: str
    begin: int

    @property
    def size(self) -> int:
        return self.begin + self.length

    @property
    def next_offset(self) -> int:
        return self.offset + self.records


def seed_of(stream: str) -> int:
    """Return what sums of this stream begin with."""
    return zlib.crc32(stream.encode())


def frame(
    lines: bytes, *, offset: int, count: int, time: int, source: str, end: int, boot: int, seed: int
) -> tuple[bytes, bytes]:
    """Return head and lines of a frame."""
    name = source.encode()
    rest = _REST.pack(zlib.crc32(lines), boot, offset, count, len(lines), time, end, len(name)) + name
    return _FIRST.pack(MAGIC, zlib.crc32(rest, seed)) + rest, lines


def head_at(data: bytes, at: int, seed: int) -> Head | None:
    """Return the head that begins at `at`; None if none does, or not all of it is there."""
    if len(data) - at < _FIXED:
        return None
    magic, expected = _FIRST.unpack_from(data, at)
    if magic != MAGIC:
        return None
    lines_sum, boot, offset, count, length, time, end, named = _REST.unpack_from(data, at + _FIRST.size)
    begin = _FIXED + named
    rest = data[at + _FIRST.size : at + begin]
    if len(rest) != begin - _FIRST.size or zlib.crc32(rest, seed) != expected:
        return None
    return Head(lines_sum, boot, offset, count, length, time, end, rest[_REST.size :].decode("ascii", "replace"), begin)


def lines_at(data: bytes, at: int, head: Head) -> bytes | None:
    """Return the lines of the frame at `at`, which is all there; None if they are not as they were written."""
    lines = data[at + head.begin : at + head.size]
    return lines if zlib.crc32(lines) == head.lines_sum else None


def find(data: bytes, at: int, offset: int, seed: int) -> tuple[int, Head] | None:
    """Return place and head of the first frame behind `at` that can follow on damage there; None if there is none.

    `offset`: of the first record that may be in the damage.
    """
    begin = at
    while (at := data.find(MAGIC, at + 1)) >= 0:
        head = head_at(data, at, seed)
        if head is not None and 0 <= head.offset - offset <= most_records(at - begin):
            return at, head
    return None


def most_records(size: int) -> int:
    """Return how many records so many bytes can have been."""
    return size // LEAST_LINE


def is_torn(tail: bytes, seed: int) -> bool:
    """Whether what is behind the last whole frame of a file is what a killed writer leaves: the first bytes of one."""
    head = head_at(tail, 0, seed)
    if head is not None:
        return len(tail) < head.size
    if len(tail) < _FIXED:
        return MAGIC.startswith(tail[: len(MAGIC)])
    named = tail[_FIXED - 1]
    return tail.startswith(MAGIC) and named <= MAX_SOURCE and len(tail) < _FIXED + named


class Frame(NamedTuple):
    """A frame at a place in what was read; `lines` is None if they cannot be read."""

    at: int
    head: Head
    lines: bytes | None


class Hole(NamedTuple):
    """Bytes before the place `end` that are no frame: the records from `offset` to before `next_offset`, or none."""

    end: int
    offset: int
    next_offset: int


def parse(data: bytes, offset: int, seed: int) -> Iterator[Frame | Hole]:
    """Yield what is in `data`, which begins where the frame of record `offset` should, as far as it is all there.

    What is not yielded at its end is the beginning of a frame, or damage behind which nothing was found yet.
    """
    at = 0
    while at < len(data):
        head = head_at(data, at, seed)
        if head is None or head.offset != offset:
            found = find(data, at, offset, seed)
            if found is None:
                return
            at, head = found
            yield Hole(at, offset, head.offset)
        if at + head.size > len(data):
            return
        yield Frame(at, head, lines_at(data, at, head))
        at, offset = at + head.size, head.next_offset


class Entry(NamedTuple):
    """A frame's first record, its time, and where in the file it begins."""

    offset: int
    time: int
    position: int


def entry(one: Entry, seed: int) -> bytes:
    """Return an entry of an index."""
    packed = _ENTRY.pack(*one)
    return packed + zlib.crc32(packed, seed).to_bytes(4)


def entries(data: bytes, seed: int) -> list[Entry] | None:
    """Return the entries of an index; None if it is not what was written."""
    found = []
    for at in range(0, len(data), ENTRY):
        packed, total = data[at : at + _ENTRY.size], data[at + _ENTRY.size : at + ENTRY]
        if len(total) != 4 or zlib.crc32(packed, seed).to_bytes(4) != total:
            return None
        found.append(Entry._make(_ENTRY.unpack(packed)))
    return found

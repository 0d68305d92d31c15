"""Reads what is at a place in a stream of the local bus.

Nothing is mapped: a page of a file that the writer cuts meanwhile would be a signal, where a read is only short. No
descriptor is kept: opening costs 2 us, and a segment that was held would hold its bytes on the disk when it goes.
"""

import errno
import itertools
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sandpost.bus import local_files as files
from sandpost.bus import segment
from sandpost.bus.contract import PIECE_BYTES, PIECE_RECORDS, Missing, Record
from sandpost.bus.segment import Hole

GONE = "these records were removed: a stream is kept for so many bytes and days"
EARLIER = "some of these, which were removed, may be since the time that was asked for"
DAMAGED = "these records cannot be read: the file that holds them is damaged"

_WINDOW = PIECE_BYTES + segment.HEAD_MOST

Read = Callable[[int, int, int], bytes]
"""Returns so many bytes of a descriptor from a position, which the file has; fewer if it was cut meanwhile."""


class Stream(NamedTuple):
    """A stream's folder, and what sums of it begin with."""

    folder: str
    seed: int


class Place(NamedTuple):
    """A place between frames: segment (its first offset), byte, offset there, and the first offset to be read."""

    base: int
    position: int
    offset: int
    wanted: int


class Piece(NamedTuple):
    """What was read, and where it goes on. No items: nothing is there now. `place` is None if there is no stream."""

    items: Sequence[Record | Missing]
    place: Place | None


def stream_at(folder: str, stream: str) -> Stream:
    """Return the stream below `folder`; `InvalidName` for what can be none."""
    return Stream(files.stream_folder(folder, stream), segment.seed_of(stream))


def begin_of(base: int) -> Place:
    """Return the place of a segment's first record."""
    return Place(base, 0, base, base)


def patiently(fd: int, size: int, position: int) -> bytes:
    """Read, and wait for the disk if need be."""
    return os.pread(fd, size, position)


def at_once(fd: int, size: int, position: int) -> bytes:
    """Read what is in memory; `BlockingIOError` if not all of it is, or the file system cannot tell."""
    data = bytearray(size)
    try:
        got = os.preadv(fd, [data], position, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise BlockingIOError from None
        raise
    if got < size:
        raise BlockingIOError
    return bytes(data)


def read(stream: Stream, place: Place, how: Read) -> Piece:
    """Return what is at `place`, a piece at most. Raises `OSError`, and what `how` does."""
    complete = False
    while True:
        try:
            fd = files.open_segment(stream.folder, place.base)
        except FileNotFoundError:
            return _gone(stream, place)
        try:
            items, place, rest = _take(fd, stream.seed, place, how)
        finally:
            os.close(fd)
        if items:
            return Piece(items, place)
        later = next((base for base in files.bases(stream.folder) if base > place.base), None)
        if later is None:
            return Piece((), place)
        if not complete:
            # Now that it has a successor nothing is added to it; something may have been since it was read.
            complete = True
            continue
        lost = min(place.offset + segment.most_records(rest), later)
        if lost > place.wanted:
            return Piece((Missing(place.wanted, lost, DAMAGED),), begin_of(later))
        place, complete = begin_of(later), False


def _gone(stream: Stream, place: Place) -> Piece:
    """The segment was removed: by age or number, or by somebody with all of the stream."""
    bases = files.bases(stream.folder)
    if not bases:
        return Piece((), None)
    base = next((base for base in bases if base > place.base), bases[0])
    return Piece((Missing(place.wanted, base, GONE),) if base > place.wanted else (), begin_of(base))


def _take(fd: int, seed: int, place: Place, how: Read) -> tuple[Sequence[Record | Missing], Place, int]:
    """Return what a segment has at `place`, the place behind, and if that is nothing, bytes that tell nothing yet."""
    size = files.size_of(fd)
    window = _WINDOW
    while place.position < size:
        data = how(fd, min(window, size - place.position), place.position)
        items, behind = _collect(data, seed, place)
        if items:
            return items, behind, 0
        if behind != place:
            place, window = behind, _WINDOW
        elif len(data) < window or window == files.LONGEST:
            break
        else:
            # A longer frame; or damage, and what follows it may be anywhere.
            head = segment.head_at(data, 0, seed)
            window = files.LONGEST if head is None or head.size <= window else head.size
    return (), place, max(0, size - place.position)


def _collect(data: bytes, seed: int, place: Place) -> tuple[Sequence[Record | Missing], Place]:
    """Return what can be read of `data`, the bytes at `place`, and the place behind it."""
    items: list[Record | Missing] = []
    taken = 0
    base, position, _, wanted = place
    for one in segment.parse(data, place.offset, seed):
        if len(items) >= PIECE_RECORDS or taken >= PIECE_BYTES:
            break
        if isinstance(one, Hole):
            if one.next_offset > wanted:
                items.append(Missing(wanted, one.next_offset, DAMAGED))
            place = Place(base, position + one.end, one.next_offset, max(wanted, one.next_offset))
            wanted = place.wanted
            continue
        begin, head = position + one.at, one.head
        lines = one.lines.split(b"\n") if one.lines is not None else []
        if len(lines) != head.records + 1:
            if head.next_offset > wanted:
                items.append(Missing(wanted, head.next_offset, DAMAGED))
        elif wanted < head.next_offset:
            at_most = min(head.records, wanted - head.offset + PIECE_RECORDS - len(items))
            chosen = lines[wanted - head.offset : at_most]
            if taken + head.length > PIECE_BYTES:
                chosen = chosen[: _fitting(chosen, PIECE_BYTES - taken, at_least=0 if items else 1)]
            items += map(Record, itertools.count(wanted), chosen)
            taken += head.length
            wanted += len(chosen)
            if wanted < head.next_offset:
                place = Place(base, begin, head.offset, wanted)
                break
        wanted = max(wanted, head.next_offset)
        place = Place(base, begin + head.size, head.next_offset, wanted)
    return tuple(items), place


def _fitting(lines: Sequence[bytes], size: int, *, at_least: int) -> int:
    """Return how many of the first lines have at most `size` bytes together with their ends."""
    ends = itertools.accumulate(len(line) + 1 for line in lines)
    return max(at_least, sum(1 for _ in itertools.takewhile(lambda end: end <= size, ends)))

"""Where reading of a stream of the local bus begins. Every call may wait for the disk."""

import bisect
import math
import os
from collections.abc import Callable, Sequence

from sandpost.bus import local_files as files
from sandpost.bus.contract import Missing, Start
from sandpost.bus.local_pieces import EARLIER, GONE, Piece, Place, Stream, begin_of
from sandpost.bus.segment import Entry, Head


def begin(stream: Stream, start: Start) -> Piece:
    """Find the place of `start`; its items are what is told before anything is read. May wait for the disk."""
    while True:
        bases = files.bases(stream.folder)
        if not bases:
            return Piece((), None)
        try:
            if start.offset is not None:
                return _at_offset(stream, bases, start.offset)
            if start.tail == 0 or (start.tail is None and start.since is None):
                return Piece((), _end(stream, bases[-1]))
            last = None if start.tail is None else _at_tail(stream, bases, start.tail)
            since = None if start.since is None else _at_time(stream, bases, start.since * 1000)
            return _later(last, since)
        except FileNotFoundError:
            # It was removed meanwhile: look again.
            continue


def end(stream: Stream) -> int:
    """Return the offset of the next record; 0 if there never was one."""
    _, place = begin(stream, Start())
    return 0 if place is None else place.offset


def first(stream: Stream) -> Place | None:
    """Return the place of the first record that is kept; None if there is no segment yet."""
    bases = files.bases(stream.folder)
    return begin_of(bases[0]) if bases else None


def _later(last: Place | None, since: Piece | None) -> Piece:
    """Return the later one of the places that are there."""
    if since is None or since.place is None:
        return Piece((), last)
    return Piece((), last) if last is not None and last.wanted > since.place.wanted else since


def _at_offset(stream: Stream, bases: list[int], offset: int) -> Piece:
    number = bisect.bisect(bases, offset) - 1
    if number < 0:
        return Piece((Missing(offset, bases[0], GONE),), begin_of(bases[0]))
    place, found = _at_record(stream, bases[number], offset)
    # Behind the last segment's end is no record to wait for; behind another one's is a gap, or damage to be told.
    if found or number + 1 < len(bases):
        place = place._replace(wanted=offset)
    return Piece((), place)


def _at_tail(stream: Stream, bases: list[int], tail: int) -> Place:
    for base in reversed(bases):
        end = _end(stream, base).offset
        if end - base >= tail:
            return _at_record(stream, base, end - tail)[0]._replace(wanted=end - tail)
        tail -= end - base
    return begin_of(bases[0])


def _at_time(stream: Stream, bases: list[int], time: float) -> Piece:
    number = bisect.bisect_left(range(len(bases)), time, key=lambda at: _first_time(stream, bases[at:])) - 1
    if number < 0:
        gone = (Missing(0, bases[0], EARLIER),) if bases[0] else ()
        return Piece(gone, begin_of(bases[0]))
    place, _ = _seek(stream, bases[number], lambda entry: entry.time < time, lambda head: head.time >= time)
    return Piece((), place)


def _at_record(stream: Stream, base: int, offset: int) -> tuple[Place, bool]:
    return _seek(stream, base, lambda entry: entry.offset <= offset, lambda head: head.next_offset > offset)


def _end(stream: Stream, base: int) -> Place:
    return _seek(stream, base, lambda _: True, lambda _: False)[0]


def _first_time(stream: Stream, bases: Sequence[int]) -> float:
    """Return the time (ms) of the first frame of these segments; if there is none it is still to come."""
    for base in bases:
        fd = files.open_segment(stream.folder, base)
        try:
            for _, head in files.Walk(fd, base, stream.seed):
                return head.time
        finally:
            os.close(fd)
    return math.inf


def _seek(stream: Stream, base: int, before: Callable[[Entry], bool], at: Callable[[Head], bool]) -> tuple[Place, bool]:
    """Return the place of the first frame of a segment for which `at` holds, and whether there is one; else the end.

    Damage before it is not passed over. `before`: whether it cannot be before this entry of the index.
    """
    fd = files.open_segment(stream.folder, base)
    try:
        index = [entry for entry in files.read_index(stream.folder, base, stream.seed) if before(entry)]
        walk = files.Walk(fd, base, stream.seed, index)
        position, offset = walk.position, walk.offset
        for place, head in walk:
            if at(head):
                return Place(base, position, offset, offset), True
            position, offset = place + head.size, head.next_offset
        return Place(base, position, offset, offset), False
    finally:
        os.close(fd)

"""Where in its partition a stream's records lie, so that history is found without reading everybody's. Pure.

A writer cuts each stream into extents: an extent begins with a chunk and is over after `EXTENT_LINES` records, or when
the partition has grown by `SPAN` Kafka records since its beginning. When one begins, the writer puts a mark into the
index topic (same partition number): stream, where, and how many records of the stream it had written before. So
whatever a stream has lies within `SPAN` behind one of its marks; all else can be jumped over.

A mark follows its chunk by a request or two, and a writer puts no third append into a partition whose marks are not
kept. A reader that first asks where the partition ends, then for the index, and always reads the last `GUARD` Kafka
records, misses nothing but what a writer left unmarked when it was killed between the two. A writer tells as kept what
is marked alone, so that this lies behind all that it has told, where `positions` of the writer that follows finds and
marks it.

The topic is not compacted: marks go by the same age as the records. (A compacted one would need a key a mark, and
tombstones.) An index topic that was made anew begins where its first mark is; what lies before is read whole.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated

import msgspec

SPAN = 256
EXTENT_LINES = 1_000
GUARD = 512
KEPT_MARKS = 256
"""Marks of a stream that a reader keeps, the last ones: what is older it finds by reading all."""
OPEN_STREAMS = 10_000


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""What an `array("q")` holds: somebody else may write into the topic, and what he says must fit."""


class Mark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An extent of `stream` begins at `at`; its writer had written `before` records to the stream before that."""

    stream: Annotated[str, msgspec.Meta(max_length=64)]
    at: _Count
    before: _Count


class Marks(msgspec.Struct, frozen=True, array_like=True):
    """What a Kafka record of the index holds: a writer's marks, in the order of their chunks."""

    version: int
    writer: int
    marks: list[Mark]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Marks)


def encode(writer: int, marks: Sequence[Mark]) -> bytes:
    """Return the value of an index record."""
    return _encoder.encode(Marks(1, writer, list(marks)))


def decode(value: bytes) -> Marks | None:
    """Return what an index record says; None if it is not ours."""
    try:
        marks = _decoder.decode(value)
    except (msgspec.DecodeError, ValueError):
        return None
    return marks if marks.version == 1 else None


class Marker:
    """A writer's side: which chunks begin an extent. Bounded: a stream long not written to begins anew."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, tuple[int, int, int]] = OrderedDict()

    def note(self, stream: str, at: int, count: int) -> Mark | None:
        """Note a kept chunk; return the mark to be written, if it begins an extent."""
        mark = None
        start, before, lines = self._open.pop(stream, (-SPAN - 1, 0, 0))
        if at >= start + SPAN or lines >= EXTENT_LINES:
            start, before, lines = at, before + lines, 0
            mark = Mark(stream, start, before)
        self._open[stream] = (start, before, lines + count)
        if len(self._open) > OPEN_STREAMS:
            self._open.popitem(last=False)
        return mark


class Extents:
    """A stream's marks by their place."""

    __slots__ = ("before", "complete", "starts", "writers")

    def __init__(self) -> None:
        self.starts = array("q")
        self.before = array("q")
        self.writers = array("Q")
        self.complete = True

    def add(self, writer: int, at: int, before: int) -> None:
        """Put a mark in. Marks of one writer come in order, of several nearly so."""
        where = bisect_right(self.starts, at)
        self.starts.insert(where, at)
        self.before.insert(where, before)
        self.writers.insert(where, writer)
        if len(self.starts) > 2 * KEPT_MARKS:
            self.complete = False
            self._drop(len(self.starts) - KEPT_MARKS)

    def _drop(self, count: int) -> None:
        del self.starts[:count], self.before[:count], self.writers[:count]

    def prune(self, first: int) -> None:
        """Forget what lies before the partition's first record."""
        self._drop(bisect_left(self.starts, first - SPAN))

    def lines(self, number: int) -> int | None:
        """Return how many records lie from mark `number` to the next one; None where only reading tells: the last
        extent, or several writers."""
        if number + 1 >= len(self.starts):
            return None
        writer = self.writers[number]
        count = self.before[number + 1] - self.before[number]
        if self.writers[number + 1] != writer or count <= 0:
            return None
        before = number - 1
        while before >= 0 and self.starts[before] > self.starts[number] - SPAN:
            if self.writers[before] != writer:
                return None
            before -= 1
        return count


class Index:
    """A reader's side, for one partition. `floor`: from there on all extents are known; None if nothing is."""

    def __init__(self) -> None:
        self.streams: dict[str, Extents] = {}
        self.floor: int | None = None
        self._pruned = 0

    def add(self, marks: Marks) -> None:
        """Take what an index record says."""
        if self.floor is None and marks.marks:
            # An extent that began before the first mark that is kept may reach beyond it.
            self.floor = min(mark.at for mark in marks.marks) + SPAN
        for mark in marks.marks:
            extents = self.streams.get(mark.stream)
            if extents is None:
                extents = self.streams[mark.stream] = Extents()
            extents.add(marks.writer & 0xFFFFFFFFFFFFFFFF, mark.at, mark.before)

    def prune(self, first: int) -> None:
        """Forget extents that lie before the partition's first record, now and then."""
        if first < self._pruned + 16 * SPAN:
            return
        self._pruned = first
        for stream, extents in list(self.streams.items()):
            extents.prune(first)
            if not extents.starts:
                del self.streams[stream]

    def jump(self, stream: str, at: int, end: int) -> int:
        """Return the first place from `at` on where a record of the stream may lie, in a partition that ended at `end`
        before the index was asked for."""
        limit = end - GUARD
        if self.floor is None or at < self.floor or at >= limit:
            return at
        extents = self.streams.get(stream)
        if extents is None:
            return limit
        if not extents.starts:
            return limit
        if not extents.complete and at < extents.starts[0]:
            return at
        number = bisect_right(extents.starts, at) - 1
        if number >= 0 and at < extents.starts[number] + SPAN:
            return at
        following = extents.starts[number + 1] if number + 1 < len(extents.starts) else limit
        return max(at, min(following, limit))

    def spans(self, stream: str, at: int, end: int) -> list[tuple[int, int]]:
        """Return where records of the stream may lie from `at` on: what `jump` would not pass over, as from and to
        before."""
        found = [(max(end - GUARD, 0), end), (at, self.floor if self.floor is not None else end)]
        extents = self.streams.get(stream)
        if extents is not None and extents.starts:
            found += [(start, start + SPAN) for start in extents.starts]
            if not extents.complete:
                found.append((at, extents.starts[0]))
        return merged([(max(start, at), min(stop, end)) for start, stop in found])


def merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans in order, without empty ones, those that meet as one."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if start >= stop:
            continue
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return found

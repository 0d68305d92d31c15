"""What lies in a partition already: read by place, by way of the index."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from sandpost.bus.kafka_index import Index, decode
from sandpost.bus.kafka_link import EARLIEST, Link, OutOfRange
from sandpost.bus.kafka_wire import FAR, Chunk, Contents, Rubbish, Seen, offset_of, values

READ_BYTES, READ_BYTES_MAX = 64 << 10, 1 << 20
"""Of a first piece, and of those that follow when more and more is asked for."""


class History:
    """One partition's. The index is read when it is first asked for, and its news each time it is asked for again."""

    def __init__(self, link: Link, partition: int) -> None:
        self.index = Index()
        self.known_first = 0
        """The partition's first place, as it was when something was read last."""
        self._link = link
        self._partition = partition
        self._at: int | None = None
        self._reading = asyncio.Lock()

    async def look_up(self) -> None:
        """Bring the index up to date. Raises `AwayError`, `RefusedError`."""
        topic = self._link.settings.index_topic
        async with self._reading:
            while True:
                try:
                    if self._at is None:
                        self._at = await self._link.bound(topic, self._partition, EARLIEST) or 0
                    fetched = await self._link.fetch(topic, self._partition, self._at, size=4 << 20, group="history")
                except OutOfRange:
                    # It was made anew, or its beginning went: what is known is of no use beside what comes.
                    self.index, self._at = Index(), None
                    continue
                found, following = values(fetched.data, self._at)
                for value in found:
                    marks = decode(value)
                    if marks is not None:
                        self.index.add(marks)
                self._at = following
                if following >= fetched.end or not found:
                    return

    async def read(
        self, key: bytes | None, at: int, size: int, stop: int = FAR
    ) -> tuple[list[tuple[bytes, Chunk | Rubbish]], int]:
        """Return what of a stream (None: of all) lies in the next piece of the partition and before `stop`, each with
        its stream's name, and the place behind that. Raises `OutOfRange`, `AwayError`."""
        fetched = await self._link.fetch(self._link.settings.topic, self._partition, at, size=size, group="history")
        contents = Contents(fetched.data, at, key, stop)
        found = list(contents)
        self.known_first = fetched.first
        self.index.prune(fetched.first)
        return found, contents.next_

    async def chunks(self, stream: str, at: int, end: int, known_end: int, seen: Seen) -> AsyncIterator[Chunk]:
        """Yield a stream's chunks from `at` to before `end`, without what it has twice; jumps as `Index.jump` says with
        `known_end`."""
        async for _, what in self._between(stream.encode(), at, end, lambda at: self.index.jump(stream, at, known_end)):
            if not seen.again(what.label):
                yield what

    def everything(self, at: int, end: int) -> AsyncIterator[tuple[bytes, Chunk]]:
        """Yield all chunks of the partition from `at` to before `end`, with their streams' names."""
        return self._between(None, at, end, lambda at: at)

    async def _between(
        self, key: bytes | None, at: int, end: int, jump: Callable[[int], int]
    ) -> AsyncIterator[tuple[bytes, Chunk]]:
        size = READ_BYTES
        while (at := jump(at)) < end:
            try:
                found, following = await self.read(key, at, size, end)
            except OutOfRange:
                first = await self.first()
                if first <= at:
                    return
                at = first
                continue
            for name, what in found:
                if isinstance(what, Chunk):
                    yield name, what
            if following == at:
                return
            at = following
            size = min(2 * size, READ_BYTES_MAX)

    async def first(self) -> int:
        """Return the partition's first place. Raises `BusError`."""
        return await self._link.bound(self._link.settings.topic, self._partition, EARLIEST) or 0

    async def last(self, stream: str, count: int, end: int) -> int:
        """Return the offset of the first of a stream's last `count` records in a partition that ends at `end`; of its
        first record if it has fewer, of the end if it has none. The index must have been looked up after `end` was
        asked for."""
        extents = self.index.streams.get(stream)
        starts = list(extents.starts) if extents is not None else []
        border, wanted = end, count
        for number in range(len(starts) - 1, -1, -1):
            start = starts[number]
            assert extents is not None
            lines = extents.lines(number)
            if lines is not None and lines < wanted:
                wanted -= lines
                border = start
                continue
            found, lines = await self._count(stream, start, border, end, wanted)
            if lines >= wanted:
                return found
            wanted -= lines
            border = start
        first = await self.first()
        found, _ = await self._count(stream, first, border, end, wanted)
        return found

    async def _count(self, stream: str, start: int, border: int, end: int, wanted: int) -> tuple[int, int]:
        """Return how many records lie from `start` to before `border`, and the offset of the first of the last `wanted`
        of them."""
        last: deque[tuple[int, int]] = deque()
        held = total = 0
        async for chunk in self.chunks(stream, start, border, end, Seen()):
            last.append((chunk.at, chunk.label.count))
            total += chunk.label.count
            held += chunk.label.count
            while held - last[0][1] >= wanted:
                held -= last.popleft()[1]
        if not last:
            return offset_of(border), 0
        return offset_of(last[0][0], max(held - wanted, 0)), total

"""The `kafka` driver's writer: batches become chunks in the partition of their stream, and marks of the index follow
them."""

import asyncio
import contextlib
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandpost.bus.batches import check
from sandpost.bus.contract import MAX_BATCH, Batch
from sandpost.bus.kafka_history import History
from sandpost.bus.kafka_index import Mark, Marker, encode, merged
from sandpost.bus.kafka_link import LATEST, Link, RefusedError
from sandpost.bus.kafka_sender import Entry, Item, Lane, Sender
from sandpost.bus.kafka_settings import KafkaSettings
from sandpost.bus.kafka_wire import VERSION, Label, header, offset_of, partition_of, parts, place_of
from sandpost.model.errors import BusError

CLOSE_WITHIN, CLOSE_WITHIN_AWAY = 5.0, 1.0
"""Seconds in which `close` has what was taken kept; the second where something is wrong with the brokers."""
ENTRY_BYTES = 128
"""What is written around a chunk's lines, about."""
MARKS_A_RECORD = 1_000


@dataclass(frozen=True, slots=True)
class _Taken:
    stream: str
    source: str
    end: int
    counts: tuple[int, ...]
    size: int


class KafkaWriter:
    """`contract.Writer` over Kafka. `name`: the host's, which brokers show and log; every host has a writer of its own.

    `kept` says what all replicas that are in step have (`acks=all`). While the brokers are away it raises every
    `patience` seconds; what was taken stays, up to `memory` bytes, and is sent when they are back.
    """

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self._settings = settings
        self._link = Link(settings, f"sandpost-writer-{name}")
        self._sender = Sender(self._link, self._wake)
        self._id = secrets.randbits(63)
        self._number = 0
        self._marker = Marker()
        self._data: dict[int, Lane] = {}
        self._marks: dict[int, Lane] = {}
        self._held: Counter[str] = Counter()
        self._held_by: Counter[int] = Counter()
        self._closed = False
        self._news = False
        self._ends: dict[str, int] = {}
        self._reached: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """See `contract.Writer.open`: waits for the brokers for `patience`, and goes on without them."""
        self._task = asyncio.create_task(self._sender.run())
        self._task.add_done_callback(lambda _: self._wake())
        deadline = time.monotonic() + self._settings.patience
        while not self._sender.ready.is_set() and time.monotonic() < deadline:
            await self._change(deadline)
            if isinstance(self._sender.why, RefusedError):
                # By the next try it may be put right.
                why, self._sender.why = self._sender.why, None
                await self._stop()
                await self._link.drop()
                raise why

    @property
    def problem(self) -> str:
        """See `contract.Writer.problem`."""
        why = next((lane.why for lane in self._sender.lanes if lane.why is not None), self._sender.why)
        return "" if why is None else why.message

    def append(self, batches: Sequence[Batch]) -> None:
        """See `contract.Writer.append`."""
        more: Counter[str] = Counter()
        more_by: Counter[int] = Counter()
        for batch in batches:
            check(batch)
            more[batch.stream] += len(batch.lines)
            more_by[self._partition(batch.stream)] += len(batch.lines)
        if (
            more.total() > self._room()
            or any(size > self._room_of(partition) for partition, size in more_by.items())
            or any(size > self.room(stream) for stream, size in more.items())
        ):
            raise ValueError("more was appended than there is room for")
        for batch in batches:
            self._take(batch)
        self._changed.set()

    def _take(self, batch: Batch) -> None:
        partition = self._partition(batch.stream)
        entries, counts = [], []
        for part, (lines, count) in enumerate(parts(batch)):
            label = Label(VERSION, self._id, self._number, batch.source, batch.end, part, count)
            self._number += 1
            entries.append(Entry(batch.stream.encode(), lines, header(label), int(batch.time * 1000)))
            counts.append(count)
        size = len(batch.lines)
        self._held[batch.stream] += size
        self._held_by[partition] += size
        taken = _Taken(batch.stream, batch.source, batch.end, tuple(counts), size)
        self._sender.put(self._lane(partition), Item(entries, size + ENTRY_BYTES * len(entries), taken))

    def room(self, stream: str) -> int:
        """See `contract.Writer.room`. A stream may have a quarter of `memory`, the streams of a partition together a
        half: one whose leader is away leaves room for the others."""
        of_stream = max(self._settings.memory // 4, MAX_BATCH) - self._held.get(stream, 0)
        return max(min(self._room(), self._room_of(self._partition(stream)), of_stream), 0)

    def _room_of(self, partition: int) -> int:
        return max(self._settings.memory // 2, MAX_BATCH) - self._held_by.get(partition, 0)

    def _room(self) -> int:
        return 0 if self._closed else self._settings.memory - self._held_by.total()

    def _partition(self, stream: str) -> int:
        return partition_of(stream, self._settings.partitions)

    async def kept(self) -> Mapping[str, int]:
        """See `contract.Writer.kept`."""
        called = time.monotonic()
        while not self._news:
            if self._closed:
                raise BusError("the writer is closed")
            if self._task is not None and self._task.done():
                self._task.result()
            if not self._held and self._sender.why is None:
                await self._change(None)
                # What comes now has the whole patience.
                called = time.monotonic()
                continue
            deadline = max(called, self._sender.kept_at) + self._settings.patience
            if time.monotonic() >= deadline:
                raise self._sender.why or self._link.unheard()
            await self._change(deadline)
        self._news = False
        ends, self._ends = self._ends, {}
        return ends

    def reached(self) -> Mapping[str, int]:
        """See `contract.Writer.reached`."""
        reached, self._reached = self._reached, {}
        return reached

    async def positions(self, sources: Mapping[str, str], since: Mapping[str, int]) -> Mapping[str, int]:
        """See `contract.Writer.positions`. All that was kept in a partition behind what `since` says of any of its
        streams is read (a second for 100 MB), and of what is before that what the index says of the streams that are
        asked for; a partition of which `since` says nothing is read whole."""
        partitions: dict[int, dict[str, int]] = {}
        for stream in sources.values():
            partitions.setdefault(self._partition(stream), {})[stream] = place_of(since.get(stream, 0))[0]
        begin: dict[int, int] = {}
        for stream, offset in since.items():
            partition = self._partition(stream)
            begin[partition] = max(begin.get(partition, 0), place_of(offset)[0])
        found: dict[str, int] = {}
        for partition, places in partitions.items():
            await self._look(partition, places, begin.get(partition, 0), sources, found)
        return found

    async def close(self) -> None:
        """See `contract.Writer.close`."""
        self._closed = True
        began = time.monotonic()
        with contextlib.suppress(BusError):
            while self._task is not None and not self._all_kept():
                deadline = began + (CLOSE_WITHIN_AWAY if self.problem else CLOSE_WITHIN)
                if time.monotonic() >= deadline:
                    break
                await self._change(deadline)
        await self._stop()
        self._wake()
        await self._link.close()

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _all_kept(self) -> bool:
        return all(lane.idle() for lane in self._sender.lanes)

    def _wake(self) -> None:
        self._changed.set()

    async def _change(self, until: float | None) -> None:
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if until is None else max(until - time.monotonic(), 0.0)):
                await self._changed.wait()

    def _lane(self, partition: int) -> Lane:
        lane = self._data.get(partition)
        if lane is None:
            marks = Lane(
                self._settings.index_topic,
                partition,
                lambda items, _at: self._marked(partition, [done for item in items for done in item.what]),
            )
            # See kafka_index: a reader relies on it that few chunks are without their marks.
            lane = Lane(
                self._settings.topic,
                partition,
                lambda items, at: self._chunks_kept(partition, items, at),
                lambda: not marks.waiting,
            )
            self._data[partition], self._marks[partition] = lane, marks
            self._sender.lanes += [lane, marks]
        return lane

    def _chunks_kept(self, partition: int, items: list[Item], at: int) -> None:
        """Count what was kept, once it is marked too: what is not lies behind all that `reached` says."""
        marks: list[Mark] = []
        done: list[tuple[_Taken, int]] = []
        for item in items:
            taken: _Taken = item.what
            for count in taken.counts:
                mark = self._marker.note(taken.stream, at, count)
                if mark is not None:
                    marks.append(mark)
                at += 1
            done.append((taken, at))
        last = self._marks[partition].last()
        if marks:
            self._mark(partition, marks, done)
        elif last is not None:
            last.what.extend(done)
        else:
            self._marked(partition, done)

    def _marked(self, partition: int, done: list[tuple[_Taken, int]]) -> None:
        for taken, at in done:
            self._held[taken.stream] -= taken.size
            if not self._held[taken.stream]:
                del self._held[taken.stream]
            self._held_by[partition] -= taken.size
            if taken.source:
                self._ends[taken.source] = taken.end
            self._reached[taken.stream] = offset_of(at)
            self._news = True
        self._wake()

    def _mark(self, partition: int, marks: list[Mark], done: list[tuple[_Taken, int]]) -> None:
        value = encode(self._id, marks)
        entry = Entry(None, value, [], int(time.time() * 1000))
        self._sender.put(self._marks[partition], Item([entry], len(value) + ENTRY_BYTES, done))

    async def _look(
        self, partition: int, places: Mapping[str, int], begin: int, sources: Mapping[str, str], found: dict[str, int]
    ) -> None:
        """Find how far sources came in a partition: in all of it from `begin` on, before that from the `places` of
        their streams on."""
        history = History(self._link, partition)
        first = await history.first()
        end = await self._link.bound(self._settings.topic, partition, LATEST) or 0
        await history.look_up()
        if begin > end:
            # The topic was made anew.
            begin, places = 0, dict.fromkeys(places, 0)
        spans = [(max(begin, first), end)]
        for stream, place in places.items():
            spans += history.index.spans(stream, max(place, first), end)
        marker = Marker()
        marks: list[Mark] = []
        for start, stop in merged(spans):
            async for key, what in history.everything(start, stop):
                label = what.label
                if sources.get(label.source) != key.decode(errors="replace"):
                    continue
                found[label.source] = max(found.get(label.source, 0), label.end)
                # The one before us may have been killed before it had marked this; a mark too many does no harm. How
                # many records there are between such marks we do not know.
                mark = marker.note(sources[label.source], what.at, label.count)
                if mark is not None and what.at >= begin:
                    marks.append(Mark(mark.stream, mark.at, 0))
        self._lane(partition)
        for some in range(0, len(marks), MARKS_A_RECORD):
            self._mark(partition, marks[some : some + MARKS_A_RECORD], [])

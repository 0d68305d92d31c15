"""The `kafka` driver's reader: partitions by hand, no consumer groups. All that follow a stream of a partition share
its tail."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sandpost.bus.batches import stream_name
from sandpost.bus.contract import Missing, Record, Start
from sandpost.bus.kafka_history import READ_BYTES, READ_BYTES_MAX, History
from sandpost.bus.kafka_index import GUARD
from sandpost.bus.kafka_link import LATEST, AwayError, Link, OutOfRange
from sandpost.bus.kafka_settings import KafkaSettings
from sandpost.bus.kafka_tail import Tail
from sandpost.bus.kafka_wire import Chunk, Rubbish, Seen, offset_of, partition_of, pieces, place_of, records
from sandpost.model.errors import BusError

WARM = 64
"""Kafka records before a beginning that are looked through for what was sent twice."""
GONE = "records that were to be read here are no longer kept"
EARLIER = "they are no longer kept, and some of them may be since the time that was asked for"
LOST = "the bus was made anew, or has lost records: offsets begin again"
RETRY = 0.2
LAST_TIME = float(1 << 50)

T = TypeVar("T")


@dataclass(slots=True)
class _Partition:
    tail: Tail
    history: History


@dataclass(slots=True)
class _Follower:
    """Where somebody is in a partition. `at`: the next Kafka record; `end`: of the partition when he began; `offset`:
    nothing before it is told; `not_before`: nor before that time (milliseconds), until something was or `end` comes;
    `indexed`: an end of the partition after which the index was asked for."""

    stream: str
    key: bytes
    at: int
    end: int
    offset: int = 0
    not_before: int = 0
    indexed: int = 0
    size: int = READ_BYTES
    losses: int = 0
    seen: Seen = field(default_factory=Seen)

    def take(self, found: Sequence[Chunk | Rubbish]) -> list[Record | Missing]:
        """Return what of it is to be told."""
        told: list[Record | Missing] = []
        for what in found:
            if what.at < self.at:
                continue
            if isinstance(what, Rubbish):
                if offset_of(what.next_) > self.offset:
                    told.append(Missing(offset_of(what.at), offset_of(what.next_), what.why))
                continue
            self.at = what.at + 1
            if self.seen.again(what.label) or (what.time < self.not_before and what.at < self.end):
                continue
            self.not_before = 0
            first = max(self.offset - offset_of(what.at), 0)
            if first < what.label.count:
                told += records(what, first)
        return told


class KafkaReader:
    """`contract.Reader` over Kafka. `name`: of the process, which brokers show and log.

    Beside one ring of 2 MiB a partition that is followed, and the index of those whose history was asked for, it holds
    nothing.
    """

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self._settings = settings
        self._link = Link(settings, f"sandpost-reader-{name}")
        self._partitions: dict[int, _Partition] = {}
        self._closed = False

    @property
    def skipped(self) -> int:
        """How many records without any stream's key the live partitions had: somebody else writes there."""
        return sum(partition.tail.skipped for partition in self._partitions.values())

    async def close(self) -> None:
        """See `contract.Reader.close`."""
        self._closed = True
        for partition in self._partitions.values():
            await partition.tail.stop()
        await self._link.close()

    def follow(self, stream: str, start: Start) -> AsyncGenerator[Sequence[Record | Missing], None]:
        """See `contract.Reader.follow`. The brokers may be away for `patience` seconds at a time."""
        return self._follow(stream_name(stream), start)

    async def end(self, stream: str) -> int:
        """See `contract.Reader.end`."""
        number = partition_of(stream_name(stream), self._settings.partitions)

        async def ask() -> int:
            return await self._link.bound(self._settings.topic, number, LATEST) or 0

        return offset_of(await self._patiently(ask))

    async def _follow(self, stream: str, start: Start) -> AsyncGenerator[Sequence[Record | Missing], None]:
        if self._closed:
            return
        number = partition_of(stream, self._settings.partitions)
        partition = self._partitions.get(number)
        if partition is None:
            partition = self._partitions[number] = _Partition(Tail(self._link, number), History(self._link, number))
        tail = partition.tail
        fresh = not tail.started
        if tail.followers == 0:
            tail.start()
        tail.followers += 1
        try:
            losses = tail.losses
            follower, missing = await self._patiently(lambda: self._begin(number, partition, stream, start, fresh))
            follower.losses = losses
            marked = False
            if missing is not None:
                yield [missing]
            while not self._closed:
                if not marked and follower.at >= follower.end:
                    marked = True
                    yield ()
                    continue
                told = await self._more(partition, follower)
                for piece in pieces(told):
                    yield piece
        except BusError:
            if not self._closed:
                raise
        finally:
            tail.followers -= 1
            if tail.followers == 0:
                # The next one begins with an end that is asked for anew.
                await tail.stop()
                if self._partitions.get(number) is partition and tail.followers == 0:
                    partition.tail = Tail(self._link, number)
                    partition.tail.skipped = tail.skipped

    async def _begin(
        self, number: int, partition: _Partition, stream: str, start: Start, fresh: bool
    ) -> tuple[_Follower, Missing | None]:
        topic = self._settings.topic
        await partition.tail.begun(self._settings.patience)
        # One that was there before may not have come to what is the end now.
        end = partition.tail.ring.next_ if fresh else await self._link.bound(topic, number, LATEST) or 0
        key = stream.encode()
        if start.tail == 0:
            return _Follower(stream, key, end, end), None
        last = None
        if start.tail is not None:
            await partition.history.look_up()
            offset = await partition.history.last(stream, start.tail, end)
            last = self._at(stream, key, offset, partition.history.known_first, end)
            last.indexed = end
            if start.since is None:
                return last, None
        if start.since is not None:
            since = int(min(max(start.since, 0.0), LAST_TIME) * 1000)
            at = await self._link.bound(topic, number, since)
            follower = _Follower(stream, key, end if at is None else min(at, end), end, not_before=since)
            if last is not None and last.offset > offset_of(follower.at):
                last.not_before = since
                return last, None
            first = await partition.history.first()
            gone = first > 0 and follower.at <= first < end
            return follower, Missing(0, offset_of(first), EARLIER) if gone else None
        if start.offset is not None and start.offset < offset_of(end):
            first = await partition.history.first()
            if start.offset < offset_of(first):
                return _Follower(stream, key, first, end), Missing(start.offset, offset_of(first), GONE)
            return self._at(stream, key, start.offset, first, end), None
        return _Follower(stream, key, end, end), None

    @staticmethod
    def _at(stream: str, key: bytes, offset: int, first: int, end: int) -> _Follower:
        place, _ = place_of(offset)
        # What is first may have been known of a topic that was made anew since.
        return _Follower(stream, key, max(place - WARM, min(first, place)), end, offset)

    async def _more(self, partition: _Partition, follower: _Follower) -> list[Record | Missing]:
        """Return what comes next, which may be nothing yet."""
        tail = partition.tail
        ring = tail.ring
        if follower.losses != tail.losses:
            follower.losses = tail.losses
            # What was there behind that is not there any more.
            follower.end = min(follower.end, ring.next_)
            follower.indexed = 0
            if follower.at > ring.next_:
                # What came since the beginning that is new, and was not told to this one.
                missing = Missing(0, offset_of(ring.next_), LOST)
                follower.at, follower.offset, follower.seen = ring.next_, 0, Seen()
                return [missing]
        if follower.at < ring.start:
            return await self._patiently(lambda: self._earlier(partition, follower, ring.next_))
        before = follower.at
        told = follower.take(ring.get(follower.key, before))
        follower.at = max(follower.at, ring.next_)
        if follower.at > before:
            return told
        if follower.at < follower.end:
            # What is live is not read up to there yet, and what comes until then may be of others alone.
            await tail.moved(self._settings.patience)
            return []
        begins = await tail.news(follower.key, self._settings.patience)
        if tail.ring is ring:
            # Nothing of the stream lies before that: were it not said, what has left the ring meanwhile would be read
            # for nothing.
            follower.at = max(follower.at, begins)
        return []

    async def _earlier(self, partition: _Partition, follower: _Follower, known_end: int) -> list[Record | Missing]:
        """Return what the next piece of the partition has for a follower that the ring is too short for."""
        history = partition.history
        if follower.at >= follower.indexed - GUARD:
            await history.look_up()
            follower.indexed = known_end
        at = history.index.jump(follower.stream, follower.at, follower.indexed)
        try:
            read, following = await history.read(follower.key, at, follower.size)
        except OutOfRange:
            first = await history.first()
            begin = max(offset_of(at), follower.offset)
            follower.at = first
            return [Missing(begin, offset_of(first), GONE)] if offset_of(first) > begin else []
        follower.size = min(2 * follower.size, READ_BYTES_MAX)
        told = follower.take([what for _, what in read])
        follower.at = max(following, follower.at)
        return told

    async def _patiently(self, what: Callable[[], Awaitable[T]]) -> T:
        """Try for `patience` seconds. Raises `BusError` then, `RefusedError` at once."""
        deadline = time.monotonic() + self._settings.patience
        while True:
            try:
                return await what()
            except AwayError:
                if time.monotonic() >= deadline or self._closed:
                    raise
                await asyncio.sleep(RETRY)

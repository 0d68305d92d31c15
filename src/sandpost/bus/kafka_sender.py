"""Appends to partitions, each kept once and in order, or tried until it is: Kafka's idempotent producer.

A lane is a partition that is written to. One append of a lane is under way at a time; what comes meanwhile is the next.
An append keeps its bytes and its sequence number however often it is sent, so that a broker that has it already says so
(KIP-98). Only if brokers have forgotten this producer is it sent under a new number, and may then be there twice;
readers drop that (`kafka_wire.Seen`). One request a broker carries all lanes that it leads.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from sandpost.bus.kafka_link import REQUEST_MS, AwayError, Link, RefusedError, failure
from sandpost.model.errors import BusError

APPEND_BYTES = 512 << 10
"""Of one append, unless a single item is larger: below what brokers take (1 MiB) when it cannot be compressed."""
PACE = 0.003
"""Seconds from the end of a request to the next one of the same broker: what comes meanwhile goes along."""
LOOK_EVERY = 5.0
"""Seconds without anything to send after which brokers are asked if they are there: who is to be told that they are
away shall not have to write first."""
BACKOFF, BACKOFF_MAX = 0.1, 2.0
SEQUENCES = 1 << 31

DUPLICATE_SEQUENCE = 46
FORGOTTEN = frozenset({45, 47, 49, 59})
"""Out of order, fenced epoch, unknown mapping, unknown producer: a new number mends it."""
CODECS = {
    "none": DefaultRecordBatch.CODEC_NONE,
    "gzip": DefaultRecordBatch.CODEC_GZIP,
    "lz4": DefaultRecordBatch.CODEC_LZ4,
    "zstd": DefaultRecordBatch.CODEC_ZSTD,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A Kafka record to be written."""

    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]
    time: int


@dataclass(frozen=True, slots=True)
class Item:
    """Entries that are appended together or not at all, and what its owner wants to be reminded of when they are."""

    entries: Sequence[Entry]
    size: int
    what: Any


@dataclass(slots=True)
class _Append:
    items: list[Item]
    buffer: bytes
    count: int
    producer: int


@dataclass(slots=True, eq=False)
class Lane:
    """A partition that is written to. `on_kept(items, at)`: they are kept, the first entry at that offset, the others
    behind it."""

    topic: str
    partition: int
    on_kept: "Callable[[list[Item], int], None]"
    may_send: Callable[[], bool] = lambda: True
    waiting: deque[Item] = field(default_factory=deque)
    append: _Append | None = None
    sequence: int = 0
    producer: int = -1
    busy: bool = False
    retry_at: float = 0.0
    backoff: float = BACKOFF
    end: int = 0
    why: BusError | None = None

    def last(self) -> Item | None:
        """Return the last that it was given and is not kept yet."""
        if self.waiting:
            return self.waiting[-1]
        return None if self.append is None else self.append.items[-1]

    def idle(self) -> bool:
        """Return whether all that it was given is kept."""
        return self.append is None and not self.waiting


class Sender:
    """Runs the lanes. `why`: why nothing is kept now, None if nothing is known to be wrong; `kept_at`: when something
    was kept last."""

    def __init__(self, link: Link, on_change: Callable[[], None]) -> None:
        self.why: BusError | None = None
        self.kept_at = time.monotonic()
        self.lanes: list[Lane] = []
        self.ready = asyncio.Event()
        self._link = link
        self._on_change = on_change
        self._codec = CODECS[link.settings.compression]
        self._work = asyncio.Event()
        self._producer = -1
        self._epoch = 0
        self._not_before: dict[int, float] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._fault: BaseException | None = None

    def put(self, lane: Lane, item: Item) -> None:
        """Give a lane something to keep."""
        lane.waiting.append(item)
        self._work.set()

    async def run(self) -> None:
        """Send what there is, for ever."""
        backoff = BACKOFF
        try:
            while True:
                if self._producer == -1:
                    try:
                        await self._begin()
                    except BusError as error:
                        self._trouble(error)
                        await asyncio.sleep(backoff)
                        backoff = min(2 * backoff, BACKOFF_MAX)
                        continue
                    backoff = BACKOFF
                if self._fault is not None:
                    raise self._fault
                self._work.clear()
                await self._wait(self._start())
        finally:
            tasks = [*self._tasks.values(), *([self._refreshing] if self._refreshing else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(self) -> None:
        if not self.ready.is_set():
            await self._link.make_topics()
        node = await self._link.leader(self._link.settings.topic, 0)
        answer = await self._link.send(node, InitProducerIdRequest(None, (1 << 31) - 1), "produce")
        if answer.error_code:
            raise failure(answer.error_code, self._link.settings.topic, "Write")
        self._producer, self._epoch = answer.producer_id, answer.producer_epoch
        self.why = None
        self.ready.set()
        self._on_change()

    def _start(self) -> float | None:
        """Send what can be sent; return when there will be more to send by itself."""
        now = time.monotonic()
        later: float | None = None
        by_node: dict[int, list[Lane]] = defaultdict(list)
        for lane in self.lanes:
            if lane.busy or lane.idle() or (lane.append is None and not lane.may_send()):
                continue
            at = lane.retry_at
            if at <= now:
                node = self._link.known_leader(lane.topic, lane.partition)
                if node is None:
                    lane.retry_at = at = now + BACKOFF
                    self._refresh()
                elif node in self._tasks:
                    continue
                else:
                    at = self._not_before.get(node, 0.0)
                    if at <= now:
                        by_node[node].append(lane)
                        continue
            later = at if later is None else min(later, at)
        for node, lanes in by_node.items():
            for lane in lanes:
                lane.busy = True
            task = self._tasks[node] = asyncio.create_task(self._send(node, lanes))
            task.add_done_callback(partial(self._ended, node))
        return later

    def _ended(self, node: int, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        del self._tasks[node]
        self._fault = self._fault or task.exception()
        self._not_before[node] = time.monotonic() + PACE
        self._work.set()

    async def _wait(self, until: float | None) -> None:
        at_rest = until is None and not self._tasks
        if at_rest:
            until = time.monotonic() + LOOK_EVERY
        try:
            async with asyncio.timeout(None if until is None else max(until - time.monotonic(), 0.0)):
                await self._work.wait()
        except TimeoutError:
            if at_rest:
                self._refresh()

    def _refresh(self) -> None:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._ask_leaders())

    async def _ask_leaders(self) -> None:
        try:
            await self._link.refresh()
        except BusError as error:
            self._trouble(error)
            await asyncio.sleep(BACKOFF)
        else:
            if self.why is not None and all(lane.why is None for lane in self.lanes):
                self.why = None
                self._on_change()
        self._work.set()

    def _trouble(self, why: BusError) -> None:
        self.why = why
        self._on_change()

    async def _send(self, node: int, lanes: list[Lane]) -> None:
        try:
            topics: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
            for lane in lanes:
                topics[lane.topic].append((lane.partition, self._prepare(lane).buffer))
            answer = await self._link.send(node, ProduceRequest(None, -1, REQUEST_MS, list(topics.items())), "produce")
        except BusError as error:
            self._refresh()
            for lane in lanes:
                self._failed(lane, error)
        else:
            place = {(lane.topic, lane.partition): lane for lane in lanes}
            for topic, partitions in answer.topics:
                for partition, code, at, *_ in partitions:
                    self._answered(place.pop((topic, partition)), code, at)
            for lane in place.values():
                self._failed(lane, AwayError("Kafka's answer lacks what was written"))
        finally:
            for lane in lanes:
                lane.busy = False

    def _prepare(self, lane: Lane) -> _Append:
        """Return a lane's append under the producer of now: the one that was sent before, or the next."""
        if lane.producer != self._producer:
            lane.producer, lane.sequence = self._producer, 0
        append = lane.append
        if append is not None and append.producer == self._producer:
            return append
        if append is not None:
            items = append.items
        else:
            items = [lane.waiting.popleft()]
            size = items[0].size
            while lane.waiting and size + lane.waiting[0].size <= APPEND_BYTES:
                size += lane.waiting[0].size
                items.append(lane.waiting.popleft())
        builder = DefaultRecordBatchBuilder(
            2, self._codec, 0, self._producer, self._epoch, lane.sequence, 4 * APPEND_BYTES
        )
        count = 0
        for item in items:
            for entry in item.entries:
                builder.append(count, entry.time, entry.key, entry.value, entry.headers)
                count += 1
        lane.append = _Append(items, bytes(builder.build()), count, self._producer)
        return lane.append

    def _answered(self, lane: Lane, code: int, at: int) -> None:
        append = lane.append
        assert append is not None
        if code and code != DUPLICATE_SEQUENCE:
            if code in FORGOTTEN:
                self._producer = -1 if append.producer == self._producer else self._producer
            error = failure(code, lane.topic, "Write")
            if not isinstance(error, RefusedError):
                self._refresh()
            self._failed(lane, error)
            return
        if code == DUPLICATE_SEQUENCE:
            # Kept by an earlier try whose answer was lost; where, the broker does not know any more. Not before this.
            at = lane.end
        lane.append = None
        lane.sequence = (lane.sequence + append.count) % SEQUENCES
        lane.end = at + append.count
        lane.backoff = BACKOFF
        lane.why = self.why = None
        self.kept_at = time.monotonic()
        lane.on_kept(append.items, at)

    def _failed(self, lane: Lane, why: BusError) -> None:
        lane.retry_at = time.monotonic() + lane.backoff
        lane.backoff = min(2 * lane.backoff, BACKOFF_MAX)
        lane.why = why
        self._trouble(why)

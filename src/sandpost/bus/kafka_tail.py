"""The live end of a partition, read once for all that follow a stream in it."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Iterable, Sequence

from sandpost.bus.kafka_link import EARLIEST, LATEST, LONG_POLL_MS, Link, OutOfRange
from sandpost.bus.kafka_wire import EVERYBODY, Chunk, Contents, Rubbish
from sandpost.model.errors import BusError

RING_BYTES = 2 << 20
ENTRY_BYTES = 200
BACKOFF, BACKOFF_MAX = 0.1, 1.0


class Ring:
    """What came last, of all streams of a partition: from `start` to before `next_`. Bounded; what falls out is read
    from Kafka again."""

    def __init__(self, start: int, limit: int = RING_BYTES) -> None:
        self.start = self.next_ = start
        self._limit = limit
        self._size = 0
        self._order: deque[tuple[bytes, int, int]] = deque()
        self._streams: dict[bytes, deque[Chunk | Rubbish]] = {}

    def add(self, found: Sequence[tuple[bytes, Chunk | Rubbish]], next_: int) -> None:
        """Take what was read from `next_` of before up to this one."""
        for key, what in found:
            size = ENTRY_BYTES + (len(what.lines) if isinstance(what, Chunk) else 0)
            self._streams.setdefault(key, deque()).append(what)
            self._order.append((key, what.at, size))
            self._size += size
        self.next_ = next_
        while self._size > self._limit and self._order:
            key, at, size = self._order.popleft()
            stream = self._streams[key]
            stream.popleft()
            if not stream:
                del self._streams[key]
            self._size -= size
            self.start = at + 1

    def get(self, key: bytes, at: int) -> list[Chunk | Rubbish]:
        """Return what is there of a stream from `at` on, which is not before `start`."""
        found: list[Chunk | Rubbish] = []
        for name in (key, EVERYBODY):
            for what in reversed(self._streams.get(name, ())):
                if what.at < at:
                    break
                found.append(what)
        found.sort(key=lambda what: what.at)
        return found


class Tail:
    """Reads on while anybody follows. `why`: why it cannot now, `since`: since when; `losses`: how often the
    partition's end was before what had been read."""

    def __init__(self, link: Link, partition: int) -> None:
        self.ring = Ring(0)
        self.followers = 0
        self.skipped = 0
        self.why: BusError | None = None
        self.since = 0.0
        self.losses = 0
        self._link = link
        self._partition = partition
        self._waiting: dict[bytes, set[asyncio.Future[int]]] = {}
        self._moving: set[asyncio.Future[int]] = set()
        self._begun = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        """Whether it ever was."""
        return self._task is not None

    def start(self) -> None:
        """Begin to read at the partition's end."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; who waits is woken."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._wake_all()

    async def begun(self, patience: float) -> None:
        """Wait until the end of the partition is known. Raises `BusError` if that takes longer than `patience`."""
        try:
            async with asyncio.timeout(patience):
                await self._begun.wait()
        except TimeoutError:
            raise self.why or self._link.unheard() from None

    async def news(self, key: bytes, patience: float) -> int:
        """Wait for something of a stream, of which all that is in the ring was had; return where it begins. Raises
        `BusError` when the brokers are away for longer than `patience`."""
        waiting = self._waiting.setdefault(key, set())
        try:
            return await self._woken(waiting, patience)
        finally:
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]

    async def moved(self, patience: float) -> None:
        """Wait until the ring goes on, whatever comes. Raises as `news`."""
        await self._woken(self._moving, patience)

    async def _woken(self, waiting: set[asyncio.Future[int]], patience: float) -> int:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting.add(future)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        return await asyncio.shield(future)
                if self._task is not None and self._task.done():
                    self._task.result()
                if self.why is not None and time.monotonic() - self.since >= patience:
                    raise self.why
        finally:
            waiting.discard(future)

    async def _run(self) -> None:
        topic, partition = self._link.settings.topic, self._partition
        group = ("tail", partition)
        backoff = BACKOFF
        while True:
            try:
                if not self._begun.is_set():
                    self.ring = Ring(await self._link.bound(topic, partition, LATEST) or 0)
                    self._begun.set()
                at = self.ring.next_
                # After trouble without waiting: that it is over must not be learned only when something comes.
                wait_ms = LONG_POLL_MS if self.why is None else 0
                fetched = await self._link.fetch(topic, partition, at, wait_ms=wait_ms, group=group)
            except OutOfRange:
                await self._begin_again()
                continue
            except BusError as error:
                if self.why is None:
                    self.since = time.monotonic()
                self.why = error
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, BACKOFF_MAX)
                continue
            self.why = None
            backoff = BACKOFF
            contents = Contents(fetched.data, at)
            found = list(contents)
            self.skipped += contents.skipped
            self.ring.add(found, contents.next_)
            self._wake(found)
            if contents.next_ > at:
                _tell(self._moving, contents.next_)

    async def _begin_again(self) -> None:
        """The place to read from is not there: it went by age while we were away, or the topic was made anew."""
        topic, partition = self._link.settings.topic, self._partition
        with contextlib.suppress(BusError):
            first = await self._link.bound(topic, partition, EARLIEST) or 0
            end = await self._link.bound(topic, partition, LATEST) or 0
            if end < self.ring.next_:
                self.losses += 1
                self.ring = Ring(end)
            else:
                self.ring = Ring(max(first, self.ring.next_))
            self._wake_all()

    def _wake(self, found: Sequence[tuple[bytes, Chunk | Rubbish]]) -> None:
        for key, what in found:
            if key == EVERYBODY:
                self._wake_all(what.at)
            _tell(self._waiting.get(key, ()), what.at)

    def _wake_all(self, at: int | None = None) -> None:
        for waiting in (*self._waiting.values(), self._moving):
            _tell(waiting, self.ring.next_ if at is None else at)


def _tell(waiting: Iterable[asyncio.Future[int]], at: int) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(at)

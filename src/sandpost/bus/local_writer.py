"""Writer of the local bus: queue, retries, and one thread that waits for the disk, so that the event loop never does.

All that was appended while the thread wrote is written next, in one write a stream.
"""

import asyncio
import contextlib
import errno
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from sandpost.bus.batches import check
from sandpost.bus.contract import MAX_BATCH, Batch
from sandpost.bus.local_append import Appender, Outcome
from sandpost.bus.retention import Limits
from sandpost.model.errors import BusError

BUFFER = 16 << 20
"""Bytes of lines that wait for the disk, of all streams; a single one may have `STREAM_BUFFER` of them."""
STREAM_BUFFER = 2 * MAX_BATCH
OPEN_FILES = 256
TEND = 1.0
_FIRST_RETRY = 0.1
_LAST_RETRY = 2.0
_CLOSE = 5.0


class LocalWriter:
    """Appends to the streams below a folder (`contract.Writer`). Others of this process's group may read them."""

    def __init__(self, folder: str, *, limits: Limits | None = None, open_files: int = OPEN_FILES) -> None:
        self._folder = folder
        self._files = Appender(folder, limits=limits or Limits(), open_files=open_files)
        self._thread = ThreadPoolExecutor(1, "bus")
        self._task: asyncio.Task[None] | None = None
        # What waits, in the order of each stream, without what the thread has; bytes of both.
        self._waiting: dict[str, list[Batch]] = {}
        self._bytes: dict[str, int] = {}
        self._total = 0
        self._wake = asyncio.Event()
        # What is kept and was not asked for yet; None if nothing is.
        self._kept: dict[str, int] | None = None
        self._reached: dict[str, int] = {}
        self._news = asyncio.Event()
        # Streams that could not be written and why; when they are tried again.
        self._failing: dict[str, str] = {}
        self._retry = _FIRST_RETRY
        self._retry_at = 0.0
        self._untold = ""
        self._not_removed = ""
        self._closing = False
        self._closed = False

    @property
    def problem(self) -> str:
        return next(iter(self._failing.values()), self._not_removed)

    async def open(self) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._files.open)
        except BlockingIOError:
            raise BusError(f"another process writes the logs below {self._folder}: end it first") from None
        except OSError as error:
            raise BusError(_words(self._folder, error)) from error
        self._task = asyncio.create_task(self._run(), name="bus")

    def set_limits(self, limits: Limits) -> None:
        """Keep so much from now on."""
        if not self._closing:
            self._thread.submit(self._files.set_limits, limits)

    def append(self, batches: Sequence[Batch]) -> None:
        more: dict[str, int] = {}
        for batch in batches:
            check(batch)
            more[batch.stream] = more.get(batch.stream, 0) + len(batch.lines)
        if sum(more.values()) > BUFFER - self._total or any(size > self.room(one) for one, size in more.items()):
            raise ValueError("more was appended than there is room for")
        for batch in batches:
            self._waiting.setdefault(batch.stream, []).append(batch)
        for stream, size in more.items():
            self._count(stream, size)
        self._wake.set()

    def room(self, stream: str) -> int:
        if self._closing:
            return 0
        return min(BUFFER - self._total, STREAM_BUFFER - self._bytes.get(stream, 0))

    async def kept(self) -> Mapping[str, int]:
        while True:
            if self._kept is not None:
                kept, self._kept = self._kept, None
                return kept
            if self._untold:
                untold, self._untold = self._untold, ""
                raise BusError(untold)
            if self._closed:
                raise BusError("the writer is closed")
            self._news.clear()
            await self._news.wait()

    def reached(self) -> Mapping[str, int]:
        reached, self._reached = self._reached, {}
        return reached

    async def positions(self, sources: Mapping[str, str], since: Mapping[str, int]) -> Mapping[str, int]:
        looking = asyncio.get_running_loop().run_in_executor(self._thread, self._files.positions, sources, since)
        try:
            return await looking
        except OSError as error:
            raise BusError(_words(self._folder, error)) from error

    async def close(self) -> None:
        if self._closed:
            return
        self._closing = True
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE):
                if self._task is not None:
                    await self._task
                await asyncio.get_running_loop().run_in_executor(self._thread, self._files.close)
        # A thread that the disk holds lets go of the files when it comes back.
        self._thread.submit(self._files.close)
        self._thread.shutdown(wait=False)
        self._closed = True
        self._news.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        tend_at = loop.time() + TEND
        while self._total or not self._closing:
            due = min(tend_at, self._retry_at) if self._failing else tend_at
            timer = loop.call_at(due, self._wake.set)
            await self._wake.wait()
            timer.cancel()
            self._wake.clear()
            now = loop.time()
            again = now >= self._retry_at
            taken = {
                stream: self._waiting.pop(stream)
                for stream in list(self._waiting)
                if again or stream not in self._failing
            }
            if taken:
                self._note(taken, await loop.run_in_executor(self._thread, self._append, taken), now)
            if now >= tend_at:
                tend_at = now + TEND
                self._not_removed = await loop.run_in_executor(self._thread, self._tend)

    def _append(self, taken: dict[str, list[Batch]]) -> dict[str, Outcome]:
        """In the thread."""
        return {stream: self._files.append(stream, batches) for stream, batches in taken.items()}

    def _tend(self) -> str:
        try:
            self._files.tend()
        except Exception as error:
            return f"old logs below {self._folder} cannot be removed: {error}"
        return ""

    def _note(self, taken: dict[str, list[Batch]], outcomes: dict[str, Outcome], now: float) -> None:
        kept: dict[str, int] = {}
        any_kept = False
        for stream, (done, end, error) in outcomes.items():
            batches = taken[stream]
            if done:
                self._reached[stream] = end
            for batch in batches[:done]:
                any_kept = True
                self._count(stream, -len(batch.lines))
                if batch.source:
                    kept[batch.source] = batch.end
            if done < len(batches):
                self._waiting[stream] = batches[done:] + self._waiting.get(stream, [])
            if error is not None:
                self._failing[stream] = _words(self._folder, error)
            else:
                self._failing.pop(stream, None)
        if not self._failing:
            self._retry, self._retry_at = _FIRST_RETRY, 0.0
        elif now >= self._retry_at:
            self._retry_at, self._retry = now + self._retry, min(self._retry * 2, _LAST_RETRY)
        if any_kept:
            self._kept = (self._kept or {}) | kept
        self._untold = "" if any_kept else self.problem
        self._news.set()

    def _count(self, stream: str, more: int) -> None:
        self._total += more
        self._bytes[stream] = self._bytes.get(stream, 0) + more
        if not self._bytes[stream]:
            del self._bytes[stream]


def _words(folder: str, error: Exception) -> str:
    if not isinstance(error, OSError):
        return f"logs cannot be written below {folder}: {error!r}"
    said = {
        errno.ENOSPC: "the disk is full: make room",
        errno.EDQUOT: "the quota is used up: make room",
        errno.EROFS: "the file system is read-only: remount it",
    }.get(error.errno or 0, error.strerror or str(error))
    return f"logs cannot be written below {error.filename or folder}: {said}"

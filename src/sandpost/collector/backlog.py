"""Records that wait for a thread which takes them somewhere: bounded, and beyond the bound the oldest is lost."""

import threading
import time
from collections import deque
from collections.abc import Sequence

from sandpost.bus.contract import Batch


class Backlog:
    """One thread takes, any may add. `most`: bytes of records."""

    def __init__(self, most: int) -> None:
        self.lost = 0
        """Records that had no room."""
        self._most = most
        self._news = threading.Condition()
        self._waiting: deque[Batch] = deque()
        self._bytes = 0
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nothing more is added."""
        return self._closed

    @property
    def crowded(self) -> bool:
        """Whether more than half of the room is taken."""
        return self._bytes > self._most // 2

    def add(self, batches: Sequence[Batch]) -> None:
        """Let batches wait; never waits itself."""
        with self._news:
            for batch in batches:
                self._waiting.append(batch)
                self._bytes += len(batch.lines)
            while self._bytes > self._most:
                self.lost += self._pop().count
            self._news.notify()

    def close(self) -> None:
        """Nothing more comes: `take` gives what waits, and then nothing."""
        with self._news:
            self._closed = True
            self._news.notify()

    def take(self, count: int, gather: float = 0.0) -> tuple[bytes, int]:
        """Wait for records, and for up to `gather` seconds until there are `count`; return lines, and how many.

        Nothing when it is closed and empty.
        """
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closed)
            until = time.monotonic() + gather
            while not self._closed and sum(batch.count for batch in self._waiting) < count:
                if (left := until - time.monotonic()) <= 0:
                    break
                self._news.wait(left)
            taken = []
            total = 0
            while self._waiting and total < count:
                batch = self._pop()
                taken.append(batch.lines)
                total += batch.count
            return b"".join(taken), total

    def pause(self, seconds: float) -> None:
        """Wait, or until it is closed."""
        with self._news:
            self._news.wait_for(lambda: self._closed, seconds)

    def _pop(self) -> Batch:
        batch = self._waiting.popleft()
        self._bytes -= len(batch.lines)
        return batch

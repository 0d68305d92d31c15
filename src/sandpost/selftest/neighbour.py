"""The neighbour: another tenant that is called at a fixed rate, whatever happens beside it."""

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

RATE = 50.0
"""Calls a second, if not said otherwise; each is begun at its own time, however long those before it take."""
_THREADS = 16
"""A second's stall is 50 calls late; more than this many at once wait in the queue and count from their own time."""
_HELD = 3000
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Quiet:
    """What the calls of a span of time saw. Times in seconds, from when each was due to the end of its answer."""

    calls: int
    failed: int
    p50: float
    p99: float
    slowest: float
    why: str = ""
    """What the first failure was."""

    @classmethod
    def of(cls, seen: "list[tuple[float, float, str]]") -> "Quiet":
        """Sum up (due, took, failure or empty)."""
        took = sorted(one[1] for one in seen) or [0.0]
        wrong = [one[2] for one in seen if one[2]]
        return cls(
            calls=len(seen), failed=len(wrong), p50=took[len(took) // 2], p99=took[len(took) * 99 // 100],
            slowest=took[-1], why=wrong[0] if wrong else "",
        )  # fmt: skip


class Neighbour:
    """Calls `call`, `rate` times a second. It returns an empty text or what was wrong; it must not raise."""

    def __init__(self, call: Callable[[], str], rate: float = RATE) -> None:
        self._call, self._rate = call, rate
        self._stop = threading.Event()
        self._due: queue.Queue[float] = queue.Queue(_HELD)
        self._lock = threading.Lock()
        self._seen: list[tuple[float, float, str]] = []
        self._waiting: set[float] = set()
        self._threads = [threading.Thread(target=self._clock, daemon=True)] + [
            threading.Thread(target=self._work, daemon=True) for _ in range(_THREADS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(30)

    def since(self, moment: float) -> Quiet:
        """Sum up the calls due since `moment` (of `time.monotonic`).

        Those under way are waited for, 5 s at most; what has no answer then was not served.
        """
        until = time.monotonic()
        patience = until + _PATIENCE
        while True:
            with self._lock:
                seen = [one for one in self._seen if moment <= one[0] <= until]
                waiting = [due for due in self._waiting if moment <= due <= until]
            now = time.monotonic()
            if not waiting or now > patience:
                return Quiet.of([*seen, *((due, now - due, f"no answer after {now - due:.1f} s") for due in waiting)])
            time.sleep(0.01)

    def _clock(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            with self._lock:
                self._waiting.add(due)
            try:
                self._due.put_nowait(due)
            except queue.Full:
                self._done(due, "a minute late")
            due += 1 / self._rate

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                due = self._due.get(timeout=0.1)
            except queue.Empty:
                continue
            self._done(due, self._call())

    def _done(self, due: float, failure: str) -> None:
        with self._lock:
            self._waiting.discard(due)
            self._seen.append((due, time.monotonic() - due, failure))

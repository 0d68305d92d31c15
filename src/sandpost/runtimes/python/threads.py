"""The threads that `def` programs run in, and what happens to one that runs on after its call's deadline."""

from __future__ import annotations

import time
from _queue import SimpleQueue
from _thread import get_ident, start_new_thread
from posix import _exit

from . import frames
from .load import Load
from .reactor import REACTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .calls import Call

    Told = tuple[Any, ...] | None

MOST = 32
BLOCKED = 86
"""Exit status of a process that ends itself for a thread that ran on: `blocked` (docs/runtime.md)."""
_GRACE = 1.0
"""Seconds after its call's deadline that a thread may run on."""
_LOOK = 0.25


class Worker:
    """One thread. `call` is what it runs now."""

    __slots__ = ("call", "ident", "overdue_at")

    def __init__(self) -> None:
        self.ident = 0
        self.call: Call | None = None
        self.overdue_at = 0.0
        """When it was first seen to run after its deadline."""


class Threads:
    """`submit` is for the loop; at most `MOST` run, further calls wait in their order."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[Call], Told], Call]] = SimpleQueue()
        self._workers: list[Worker] = []
        self._free: list[None] = []
        """One entry a thread that waits for work, or is about to."""
        self._watching = False
        self._look_due = 0.0
        self._load = Load()
        self.in_flight: Callable[[], int] = int
        """How many calls somebody still waits for."""

    def submit(self, job: Callable[[Call], Told], call: Call) -> None:
        """Have `job(call)` called in a thread, in the call's context; it says what the loop is to call then."""
        self._jobs.put((job, call))
        if self._free:
            self._free.pop()
        elif len(self._workers) < MOST:
            self._grow()
        if call.due and not self._watching:
            self._watching = True
            self._look_later()

    def _grow(self) -> None:
        worker = Worker()
        try:
            start_new_thread(self._work, (worker,))
        except RuntimeError:
            # At the tenant's limit of processes: the call waits for a thread that is there, or for room for the first.
            if not self._workers and not self._jobs.empty():
                REACTOR.call_later(_LOOK, self._grow)
            return
        self._workers.append(worker)

    def _work(self, worker: Worker) -> None:
        worker.ident = get_ident()
        get = self._jobs.get
        while True:
            job, call = get()
            worker.call = call
            # Told when the context is free again: the loop may enter it next.
            told = call.context.run(job, call)
            worker.call = None
            worker.overdue_at = 0.0
            if told is not None:
                REACTOR.post(*told)
            del job, call, told
            if self._jobs.empty():
                self._free.append(None)

    def _look_later(self) -> None:
        self._look_due = time.monotonic() + _LOOK
        REACTOR.call_later(_LOOK, self._watch)

    def _watch(self) -> None:
        now = time.monotonic()
        overdue = [worker for worker in self._workers if _runs_on(worker, now)]
        if overdue:
            self._judge(overdue, now)
        else:
            self._load.forget()
        if any(worker.call is not None for worker in self._workers) or not self._jobs.empty():
            self._look_later()
        else:
            self._watching = False

    def _judge(self, overdue: list[Worker], now: float) -> None:
        # One that was just started has no name yet, and no call.
        idents = [get_ident(), *(worker.ident for worker in self._workers if worker.ident)]
        self._load.look(now, self._look_due, time.process_time(), {ident: _cpu(ident) for ident in idents})
        computing = self._load.computing()
        for worker in overdue:
            if not worker.overdue_at:
                worker.overdue_at = now
            elif now - worker.overdue_at >= _GRACE:
                computes = worker.ident in computing
                if computes or not self.in_flight():
                    end_blocked(worker.call, "computes" if computes else "waits")


def _runs_on(worker: Worker, now: float) -> bool:
    call = worker.call
    return call is not None and 0.0 < call.due <= now


def _cpu(ident: int) -> float:
    return time.clock_gettime(time.pthread_getcpuclockid(ident))


def end_blocked(call: Call | None, how: str) -> None:
    """End the process: a thread cannot be stopped, and each that runs on is one less for other calls."""
    frames.write(
        50,
        "" if call is None else call.frame_id,
        f"blocked: a thread of this call {how} on, a second after the call's deadline",
    )
    frames.FRAMES.drain()
    _exit(BLOCKED)

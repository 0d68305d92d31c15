"""The loads of one sandbox: once at a time for each program, and few bytes under way at once."""

from collections.abc import Callable

from sandpost.proxy.figures import Counts
from sandpost.proxy.load import Load, Waiter
from sandpost.proxy.program import Program
from sandpost.proxy.upstream import Pool

MAX_UNDER_WAY = 4 << 20
"""Bytes of programs that a worker sends to one sandbox at once; a longer one goes alone. They are the sandbox's memory
several times over while they are read and compiled."""


class Loads:
    """See the module. `on_loaded(code_hash)` says that a program is loaded."""

    def __init__(self, pool: Pool, counts: Counts, on_loaded: Callable[[str], None]) -> None:
        self._pool = pool
        self._counts = counts
        self._on_loaded = on_loaded
        # By hash: under way, waiting for their turn in the order that they came, or ended and not yet forgotten.
        self._loads: dict[str, Load] = {}
        self._queue: dict[str, Load] = {}
        self._under_way = 0
        self._closed = False

    def load(self, program: Program, waiter: Waiter) -> None:
        """Load the program for `waiter`, together with whoever waits for the same."""
        code_hash = program.id
        load = self._loads.get(code_hash)
        if load is not None and not load.ended:
            load.waiters.append(waiter)
            return
        load = self._loads[code_hash] = Load(self._pool, program, waiter, self._ended)
        load.waiters.append(waiter)
        self._queue[code_hash] = load
        self._start()

    def forget(self, code_hash: str, waiter: Waiter) -> None:
        """`waiter` waits no more, or its load has ended."""
        load = self._loads.get(code_hash)
        if load is None:
            return
        if waiter in load.waiters:
            load.waiters.remove(waiter)
        if load.loaded:
            self._on_loaded(code_hash)
        if load.ended:
            del self._loads[code_hash]
        elif not load.waiters:
            del self._loads[code_hash]
            if self._queue.pop(code_hash, None) is None:
                load.cancel()
            else:
                # It may have been what those behind it waited for.
                self._start()

    def close(self) -> None:
        """Stop all; the waiters are told by whoever closes."""
        self._closed = True
        self._queue.clear()
        for load in list(self._loads.values()):
            load.cancel()

    def _start(self) -> None:
        while self._queue and not self._closed:
            code_hash, load = next(iter(self._queue.items()))
            if self._under_way and self._under_way + load.size > MAX_UNDER_WAY:
                return
            del self._queue[code_hash]
            self._under_way += load.size
            self._counts.loads += 1
            load.start()

    def _ended(self, load: Load) -> None:
        self._under_way -= load.size
        self._start()

"""Looks at memory all the time, and ends sandboxes before all of them together are full."""

import asyncio
import time
from collections.abc import Callable

from sandpost.controller import room
from sandpost.controller.candidates import candidates
from sandpost.controller.desk import Desk
from sandpost.controller.meter import Meter
from sandpost.engines.contract import Engine
from sandpost.logs.setup import get_logger
from sandpost.model.errors import EngineError

log = get_logger()

_LOOK_AGAIN = 1.0
"""Seconds after a look that failed."""


class MemoryWatch:
    """Measures, and acts on what it sees. `after` is called when sandboxes were ended."""

    def __init__(self, desk: Desk, engine: Engine, meter: Meter, reserve: float, after: Callable[[], None]) -> None:
        self._desk = desk
        self._engine = engine
        self._meter = meter
        self._after = after
        self.reserve = reserve
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._undo: Callable[[], None] = lambda: None

    def open(self) -> None:
        """Bound all sandboxes together, and begin to look."""
        self.bound()
        self._look()

    def bound(self) -> None:
        """Bound all sandboxes together, as the reserve says now."""
        self._undo()
        self._engine.limit_parent(room.parent_limit(_machine()[0], self.reserve))
        try:
            self._undo = self._engine.watch_parent(self.measure().soft, self._look_now)
        except (EngineError, OSError) as error:
            log.warning("no event tells when sandboxes fill the memory; it is looked at instead", error=str(error))
            self._undo = lambda: None

    def close(self) -> None:
        """Stop looking."""
        self._undo()
        if self._timer is not None:
            self._timer.cancel()

    def measure(self) -> room.Memory:
        """Read how full it is now."""
        used, bound = self._engine.memory()
        total, available = _machine()
        return room.Memory(used=used, bound=bound, available=available, total=total)

    def _look_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._look()

    def _look(self) -> None:
        again = _LOOK_AGAIN
        try:
            memory = self.measure()
            again = room.next_look(memory)
            # What has been ended is still there, and counts as free.
            self._act(memory, sum(one.memory for one in self._desk.fleet.departing()))
        except Exception:
            log.exception("the look at memory failed; it is tried again")
        self._timer = self._loop.call_later(again, self._look)

    def _act(self, memory: room.Memory, leaving: int) -> None:
        pressure = room.pressure(memory)
        wanted = memory.used - leaving - memory.soft
        if pressure == "none" or wanted <= 0:
            return
        now = time.monotonic()
        fleet = self._desk.fleet
        if pressure == "soft":
            wanted -= sum(one.memory for one in fleet.draining())
            for sandbox_id in room.longest_idle(candidates(fleet, now), wanted):
                fleet.leave(fleet.sandboxes[sandbox_id], "evicted", "evicted: the host's memory is nearly full", now)
            return
        for own in list(fleet.tenants.values()):
            for sandbox in own.values():
                self._meter.read(sandbox, now)
        chosen = room.victims(candidates(fleet, now), wanted)
        for sandbox_id in chosen:
            sandbox = fleet.sandboxes[sandbox_id]
            self._desk.end(sandbox, "evicted", "evicted: the memory of all sandboxes together was nearly full", now)
        if chosen:
            log.warning("sandboxes were ended to keep memory free", count=len(chosen), used=memory.used)
            self._after()


def _machine() -> tuple[int, int]:
    """Return the machine's memory and what of it is available, bytes (proc(5))."""
    found = {}
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            name, _, rest = line.partition(":")
            if name in {"MemTotal", "MemAvailable"}:
                found[name] = int(rest.split()[0]) << 10
                if len(found) == 2:
                    break
    return found["MemTotal"], found["MemAvailable"]

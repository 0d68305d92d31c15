"""CPU time of sandboxes whose tenants limit it a call: read four times a second, so that it can be told since when."""

from bisect import bisect_left
from collections import deque

from sandpost.controller.lifecycle import Fleet, Sandbox
from sandpost.controller.meter import Meter

EVERY = 0.25
"""Seconds between two readings; by so much a call may be charged too little, never too much."""
_READINGS = 16384
"""An hour, which is the longest deadline."""


class CpuHistory:
    """Readings of the busy sandboxes whose limits name `cpu_seconds`. Times are a monotonic clock's seconds."""

    def __init__(self, fleet: Fleet, meter: Meter) -> None:
        self._fleet = fleet
        self._meter = meter
        self._readings: dict[str, deque[tuple[float, float]]] = {}

    def step(self, now: float) -> None:
        """Read them (called once in `EVERY`)."""
        limited = [
            one for own in self._fleet.tenants.values() for one in own.values() if one.record.limits.cpu_seconds
        ]  # fmt: skip
        if not limited and not self._readings:
            return
        for gone in self._readings.keys() - {one.sandbox_id for one in limited}:
            del self._readings[gone]
        for sandbox in limited:
            found = self._meter.read(sandbox, now)
            if found is not None:
                known = self._readings.setdefault(sandbox.sandbox_id, deque(maxlen=_READINGS))
                known.append((now, found.cpu_seconds))

    def used(self, sandbox: Sandbox, seconds: float, now: float) -> float:
        """Return the CPU seconds it has used in the last `seconds`, rounded down to whole readings."""
        known = self._readings.get(sandbox.sandbox_id)
        found = self._meter.read(sandbox, now)
        if not known or found is None:
            return 0.0
        at = bisect_left(known, (now - seconds, 0.0))
        return found.cpu_seconds - known[at][1] if at < len(known) else 0.0

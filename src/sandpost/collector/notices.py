"""What is told of lines that were lost, in the streams where they are missing."""

import time
from collections.abc import Callable

from sandpost.bus.contract import Batch, Writer
from sandpost.collector.counts import Counts
from sandpost.collector.streams import Tenancy
from sandpost.logs import bunyan
from sandpost.logs.platform import Voice

LEAST_ROOM = 8 * 1024
"""Bytes that the bus must have room for before a loss is told."""
LOST_REASON = "the log could not be written"


class Notices:
    """Of all tenants. A loss is told when the bus has room for it.

    `room`: bytes that the bus takes of a tenant's stream now. `need_tick`: call `tick` within a quarter of a second.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        counts: Counts,
        hostname: str,
        pid: int,
        room: Callable[[str], int],
        need_tick: Callable[[], None],
    ) -> None:
        self._writer = writer
        self._voice = Voice(hostname, pid)
        self._counts = counts
        self._room, self._need_tick = room, need_tick
        self._losers: set[Tenancy] = set()

    def record(self, tenancy: Tenancy, text: str, at: float, *, sandbox_id: str = "") -> bytes:
        """Return the line that tells of a loss."""
        return self._voice.line(tenancy.tenant, text, at, level=bunyan.WARN, sandbox_id=sandbox_id)

    def lose(self, tenancy: Tenancy, lines: int, now: float, *, counted: bool = False) -> None:
        """Count lines of a tenant that are lost and in no stream's count; they are told."""
        if lines:
            self._counts.unwritten += 0 if counted else lines
            tenancy.lost.add(lines, now)
            self._losers.add(tenancy)
            self._need_tick()

    def tick(self, now: float) -> bool:
        """Tell what is due; return whether any loss is still to be told."""
        for tenancy in list(self._losers):
            if tenancy.lost.due(now) and self._room(tenancy.tenant) >= LEAST_ROOM:
                at = time.time()
                line = self.record(tenancy, tenancy.lost.sentence(LOST_REASON), at)
                tenancy.lost.clear()
                self._losers.discard(tenancy)
                self._writer.append([Batch(stream=tenancy.tenant, source="", end=0, lines=line, count=1, time=at)])
        return bool(self._losers)

    def is_busy(self, tenancy: Tenancy) -> bool:
        """Whether something of a tenant is still to be told."""
        return tenancy in self._losers

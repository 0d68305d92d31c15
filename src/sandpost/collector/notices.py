"""What the platform itself tells tenants in their own streams: notes, and how many lines were lost."""

import time
from collections import deque
from collections.abc import Callable

from sandpost.bus.contract import Batch, Writer
from sandpost.collector.counts import Counts
from sandpost.collector.streams import Tenancy
from sandpost.logs import bunyan, records

MAX_NOTES = 1000
LEAST_ROOM = 8 * 1024
"""Bytes that the bus must have room for before a loss is told."""
LOST_REASON = "the log could not be written"


class Notices:
    """Of all tenants. What the bus has no room for waits here, bounded.

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
        self._hostname = hostname
        self._pid = pid
        self._counts = counts
        self._room, self._need_tick = room, need_tick
        self._losers: set[Tenancy] = set()
        self._waiting: deque[tuple[Tenancy, bytes, float]] = deque()

    def record(
        self, tenancy: Tenancy, text: str, at: float, *, level: int = bunyan.WARN, sandbox_id: str = ""
    ) -> bytes:
        """Return the line that tells a tenant something."""
        return records.encode(
            records.notice(
                text, hostname=self._hostname, pid=self._pid, tenant=tenancy.tenant, at=at, level=level,
                sandbox_id=sandbox_id,
            )
        )  # fmt: skip

    def note(self, tenancy: Tenancy, text: str, *, level: int = bunyan.WARN, sandbox_id: str = "") -> None:
        """Tell a tenant in his own log."""
        if len(self._waiting) >= MAX_NOTES:
            self.lose(tenancy, 1, time.monotonic())
            return
        at = time.time()
        self._waiting.append((tenancy, self.record(tenancy, text, at, level=level, sandbox_id=sandbox_id), at))
        self.send()

    def lose(self, tenancy: Tenancy, lines: int, now: float, *, counted: bool = False) -> None:
        """Count lines of a tenant that are lost and in no stream's count; they are told."""
        if lines:
            self._counts.unwritten += 0 if counted else lines
            tenancy.lost.add(lines, now)
            self._losers.add(tenancy)
            self._need_tick()

    def send(self) -> None:
        """Hand over what waits, as far as there is room."""
        for _ in range(len(self._waiting)):
            tenancy, line, at = self._waiting.popleft()
            if self._room(tenancy.tenant) < len(line):
                self._waiting.append((tenancy, line, at))
                continue
            self._writer.append([Batch(stream=tenancy.tenant, source="", end=0, lines=line, count=1, time=at)])

    def tick(self, now: float) -> bool:
        """Tell what is due; return whether any loss is still to be told."""
        for tenancy in list(self._losers):
            if tenancy.lost.due(now) and self._room(tenancy.tenant) >= LEAST_ROOM:
                text = tenancy.lost.sentence(LOST_REASON)
                tenancy.lost.clear()
                self._losers.discard(tenancy)
                self.note(tenancy, text)
        return bool(self._losers)

    def is_busy(self, tenancy: Tenancy) -> bool:
        """Whether something of a tenant is still to be told."""
        return tenancy in self._losers or any(one is tenancy for one, _, _ in self._waiting)

"""What tenants have used, by hour, until the api has it. Pure; `Snapshot` is what survives a killed controller.

Usage is told in batches with a name each. One batch is out at a time; until it is acknowledged it is told again
as it was, so that the api can leave out what it has. All else adds up meanwhile.
"""

import secrets
from collections.abc import Iterable

import msgspec

from sandpost.model.messages import Usage, UsageItem

MAX_ITEMS = 500
"""Items of a batch; each takes at most 300 bytes of the packet's 160 KiB."""
MAX_OPEN = 50_000
"""Tenants' hours kept while there is no api; beyond it the oldest hours are given up."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """`<run_dir>/usage.json`. `read`: of each sandbox the CPU seconds that are counted, and when (monotonic)."""

    version: int = 1
    batch: str = ""
    told: list[UsageItem] = []
    open: list[UsageItem] = []
    read: dict[str, tuple[float, float]] = {}


class Ledger:
    """Sums of usage by tenant and hour (seconds since the epoch, divided by 3600)."""

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        snapshot = snapshot or Snapshot()
        self._batch = snapshot.batch
        self._told = snapshot.told
        self._open = {(item.tenant, item.hour): item for item in snapshot.open}
        self._read = dict(snapshot.read)
        self.lost = 0
        self.changed = False

    def add(self, item: UsageItem) -> None:
        """Add to what the tenant used in that hour."""
        self.changed = True
        key = (item.tenant, item.hour)
        before = self._open.get(key)
        if before is not None:
            self._open[key] = _sum(before, item)
            return
        if len(self._open) >= MAX_OPEN:
            oldest = min(self._open, key=lambda key: key[1])
            del self._open[oldest]
            self.lost += 1
        self._open[key] = item

    def drop(self, tenant: str) -> None:
        """Forget what a tenant used, but for what is on its way to the api."""
        for key in [key for key in self._open if key[0] == tenant]:
            del self._open[key]
            self.changed = True

    def reading(self, sandbox_id: str, cpu_seconds: float, now: float) -> tuple[float, float]:
        """Take a reading of a sandbox's CPU seconds; return those since the last one, and the time since then."""
        before, at = self._read.get(sandbox_id, (0.0, now))
        self._read[sandbox_id] = (max(before, cpu_seconds), now)
        self.changed = True
        return max(0.0, cpu_seconds - before), max(0.0, now - at)

    def forget(self, sandbox_id: str) -> None:
        """The sandbox is gone; its last reading has been taken."""
        self._read.pop(sandbox_id, None)

    def keep(self, sandbox_ids: Iterable[str]) -> None:
        """Forget all other sandboxes."""
        wanted = set(sandbox_ids)
        self._read = {sandbox_id: read for sandbox_id, read in self._read.items() if sandbox_id in wanted}

    def batch(self) -> Usage | None:
        """Return what to tell the api: the batch that is out, or else a new one; None if there is nothing."""
        if not self._batch:
            if not self._open:
                return None
            keys = sorted(self._open, key=lambda key: key[1])[:MAX_ITEMS]
            self._told = [self._open.pop(key) for key in keys]
            self._batch = secrets.token_hex(8)
            self.changed = True
        return Usage(batch=self._batch, items=self._told)

    def taken(self, batch: str) -> bool:
        """The api has it; return whether there is more to tell."""
        if batch != self._batch:
            return False
        self._batch, self._told, self.changed = "", [], True
        return bool(self._open)

    def snapshot(self) -> Snapshot:
        """Return all of it, and count it as written."""
        self.changed = False
        return Snapshot(batch=self._batch, told=self._told, open=list(self._open.values()), read=self._read)


def _sum(one: UsageItem, other: UsageItem) -> UsageItem:
    ends = dict(one.ends)
    for word, count in other.ends.items():
        ends[word] = ends.get(word, 0) + count
    return UsageItem(
        tenant=one.tenant,
        hour=one.hour,
        calls=one.calls + other.calls,
        cpu_seconds=one.cpu_seconds + other.cpu_seconds,
        memory_seconds=one.memory_seconds + other.memory_seconds,
        bytes_in=one.bytes_in + other.bytes_in,
        bytes_out=one.bytes_out + other.bytes_out,
        ends=ends,
    )

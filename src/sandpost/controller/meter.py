"""Reads what sandboxes use, in turn, and enters it into the ledger."""

import time
from collections.abc import Iterator

from sandpost.controller.hits import Hit
from sandpost.controller.ledger import Ledger
from sandpost.controller.lifecycle import Fleet, Sandbox
from sandpost.engines.contract import Consumption, Engine
from sandpost.model.ends import End
from sandpost.model.messages import Activity, UsageItem

ROUND = 5.0
"""Seconds in which every sandbox that has calls is read once."""
IDLE_ROUNDS = 6
"""One without calls is read in every sixth round: readings are sums, so that nothing is lost between them."""
STEPS = 50
"""Steps of a round, so that a thousand sandboxes never hold up the event loop."""

_CALLED = 2.5
"""Seconds after a call for which a sandbox counts as busy: proxies report once a second."""
_LOOKS = 100
"""Sandboxes that are looked at a second, 0.1 ms each."""
LATE = 30.0
"""Seconds after an end in which proxies may still report what they saw before it."""


class Meter:
    """All usage passes here. `now` is monotonic; hours are of the wall clock."""

    def __init__(self, fleet: Fleet, engine: Engine, ledger: Ledger) -> None:
        self._fleet = fleet
        self._engine = engine
        self.ledger = ledger
        self._round = iter(list[Sandbox]())
        self._each = 1
        self._steps = 0
        self._looked = 0
        self._late: dict[str, tuple[str, float]] = {}
        # Sandboxes of removed tenants: nothing more of them is entered. Until when they are remembered.
        self._disowned: dict[str, float] = {}

    def step(self, now: float) -> None:
        """Read the next sandboxes (called `STEPS` times a round)."""
        if self._steps % STEPS == 0:
            self._begin_round(now)
        self._steps += 1
        for _ in range(self._each):
            sandbox = next(self._round, None)
            if sandbox is None:
                return
            if sandbox.phase != "gone":
                self.read(sandbox, now)
                self._fleet.note_calls(sandbox)

    def _begin_round(self, now: float) -> None:
        rounds = self._steps // STEPS
        due = [
            one for own in self._fleet.tenants.values() for one in own.values()
            if one.calls_in_flight or now - one.last_call_at < 2 * ROUND
            or (one.record.slot + rounds) % IDLE_ROUNDS == 0
        ]  # fmt: skip
        self._each = max(1, -(-len(due) // STEPS))
        self._round = iter(due)

    def read(self, sandbox: Sandbox, now: float) -> Consumption | None:
        """Read one sandbox now; None if there is nothing of it to read."""
        record = sandbox.record
        found = self._engine.consumption(record.sandbox_id, record.group_id)
        if found is None:
            return None
        cpu, since = self.ledger.reading(record.sandbox_id, found.cpu_seconds, now)
        if record.tenant is not None and record.sandbox_id not in self._disowned:
            held = since * (found.memory + (sandbox.memory or found.memory)) / 2
            self.ledger.add(UsageItem(tenant=record.tenant, hour=_hour(), cpu_seconds=cpu, memory_seconds=held))
        sandbox.memory, sandbox.pids, sandbox.cpu_seconds = found.memory, found.pids, found.cpu_seconds
        sandbox.peak_memory = max(sandbox.peak_memory, found.memory, found.peak_memory)
        return found

    def hits(self, now: float) -> Iterator[tuple[Sandbox, Hit]]:
        """Look at sandboxes that are called now for limits that they meet (called once a second)."""
        busy = [
            one for own in self._fleet.tenants.values() for one in own.values()
            if one.calls_in_flight or now - one.last_call_at < _CALLED
        ]  # fmt: skip
        # Each in its turn, where there are more than a second should hold.
        start = self._looked % len(busy) if len(busy) > _LOOKS else 0
        self._looked = start + _LOOKS
        for sandbox in (busy + busy)[start : start + min(len(busy), _LOOKS)]:
            record = sandbox.record
            seen = self._engine.pressure(record.sandbox_id, record.group_id, record.pid, record.limits)
            for hit in sandbox.hits.look(seen, record.limits, now) if seen is not None else ():
                yield sandbox, hit

    def report(self, activity: Activity) -> None:
        """Enter what a proxy saw of a sandbox, which may be gone by now."""
        sandbox = self._fleet.sandboxes.get(activity.sandbox_id)
        tenant = sandbox.record.tenant if sandbox is not None else self._late.get(activity.sandbox_id, (None, 0.0))[0]
        if (
            tenant is not None
            and activity.sandbox_id not in self._disowned
            and (activity.calls or activity.bytes_in or activity.bytes_out)
        ):
            self.ledger.add(
                UsageItem(
                    tenant=tenant, hour=_hour(), calls=activity.calls,
                    bytes_in=activity.bytes_in, bytes_out=activity.bytes_out,
                )
            )  # fmt: skip

    def ended(self, sandbox: Sandbox, word: End, now: float) -> None:
        """Take a last reading of a sandbox that is about to be removed, and count its end."""
        self.read(sandbox, now)
        self.ledger.forget(sandbox.sandbox_id)
        tenant = sandbox.record.tenant
        if tenant is not None and sandbox.sandbox_id not in self._disowned:
            self.ledger.add(UsageItem(tenant=tenant, hour=_hour(), ends={word: 1}))
            self._late[sandbox.sandbox_id] = (tenant, now + LATE)

    def parted(self, sandbox: Sandbox, seconds: float) -> None:
        """Enter what a sandbox used in its farewell, which took so many seconds since its last reading."""
        record = sandbox.record
        found = self._engine.consumption(record.sandbox_id, record.group_id)
        if found is None or record.tenant is None or record.sandbox_id in self._disowned:
            return
        cpu = max(0.0, found.cpu_seconds - sandbox.cpu_seconds)
        held = seconds * (found.memory + sandbox.memory) / 2
        self.ledger.add(UsageItem(tenant=record.tenant, hour=_hour(), cpu_seconds=cpu, memory_seconds=held))

    def disown(self, tenant: str, now: float) -> None:
        """Forget what a tenant used and has not been told, and what its sandboxes still use: it was removed."""
        self.ledger.drop(tenant)
        for sandbox_id in self._fleet.tenants.get(tenant, {}):
            self._disowned[sandbox_id] = now + LATE
        for sandbox_id, (name, _) in self._late.items():
            if name == tenant:
                self._disowned[sandbox_id] = now + LATE

    def prune(self, now: float) -> None:
        """Forget sandboxes that are long gone."""
        for sandbox_id, (_, until) in list(self._late.items()):
            if until > now:
                break
            del self._late[sandbox_id]
        for sandbox_id, until in list(self._disowned.items()):
            if until <= now and sandbox_id not in self._fleet.sandboxes:
                del self._disowned[sandbox_id]


def _hour() -> int:
    return int(time.time()) // 3600

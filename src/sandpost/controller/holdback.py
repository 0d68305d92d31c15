"""Holds back a tenant whose sandboxes end fatally again and again.

Five fatal ends within ten seconds: the next sandbox is refused for a second; each time it happens again twice as
long, up to thirty. What is counted towards one hold is not counted towards the next, so that a single end never
holds anybody back. A quiet minute makes the next hold as short as the one before; see `QUIET`.
"""

from collections import deque
from dataclasses import dataclass, field

ENDS = 5
WINDOW = 10.0
FIRST = 1.0
LONGEST = 30.0
QUIET = 60.0
"""Seconds without a fatal end after which one doubling is forgiven."""


@dataclass(slots=True)
class _State:
    ends: deque[float] = field(default_factory=deque)
    until: float = 0.0
    level: int = 0
    quiet_since: float = 0.0


class HoldBack:
    """The fatal ends of every tenant that had one lately. Times are a monotonic clock's seconds."""

    def __init__(self) -> None:
        self._tenants: dict[str, _State] = {}

    def __len__(self) -> int:
        return len(self._tenants)

    def fatal(self, tenant: str, now: float) -> None:
        """Count a fatal end."""
        state = self._tenants.setdefault(tenant, _State())
        self._forgive(state, now)
        state.quiet_since = now
        state.ends.append(now)
        while state.ends[0] <= now - WINDOW:
            state.ends.popleft()
        if len(state.ends) >= ENDS:
            hold = min(FIRST * 2**state.level, LONGEST)
            state.until = max(state.until, now + hold)
            state.level += 1
            state.ends.clear()

    def held_for(self, tenant: str, now: float) -> float:
        """Return for how many seconds yet the tenant gets no sandbox; 0 if it does."""
        state = self._tenants.get(tenant)
        return max(0.0, state.until - now) if state else 0.0

    def prune(self, now: float) -> None:
        """Forget tenants of which nothing counts any more."""
        for tenant, state in list(self._tenants.items()):
            self._forgive(state, now)
            if state.level == 0 and state.until <= now and (not state.ends or state.ends[-1] <= now - WINDOW):
                del self._tenants[tenant]

    def _forgive(self, state: _State, now: float) -> None:
        since = max(state.quiet_since, state.until)
        steps = int(max(0.0, now - since) // QUIET)
        if steps and state.level:
            state.level = max(0, state.level - steps)
            state.quiet_since = since + steps * QUIET

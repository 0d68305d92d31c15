"""Memory: whether another sandbox fits, and who ends before all sandboxes together are full."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sandpost.model.engines import NEEDS
from sandpost.model.limits import EngineName

MiB = 1 << 20

MACHINE_RESERVE = 0.1
"""Share of the machine's memory that no start may touch, whoever uses the rest."""
IDLE_AFTER = 5.0
"""Seconds without a call after which a sandbox may end for want of memory."""
_FASTEST_FILL = 2 << 30
"""Bytes a second that two cores can dirty; the watch is never further apart than half of what is free."""
_SOONEST = 0.01
_LATEST = 1.0

Pressure = Literal["none", "soft", "hard"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes. `used` of `bound` by all sandboxes together, `available` of `total` on the machine.

    `bound` is what the setting `memory_reserve` leaves; the machine's own memory is looked at besides, for what
    others than sandboxes use.
    """

    used: int
    bound: int
    available: int
    total: int

    @property
    def margin(self) -> int:
        """What is kept free below the bound: between a sixteenth and a quarter of it.

        Seen: two busy cores fill 64 MiB before the memory of a killed sandbox is free again.
        """
        return min(max(self.bound // 16, 192 * MiB), self.bound // 4)

    @property
    def hard(self) -> int:
        """Above this the sandbox that is furthest above its guarantee ends."""
        return self.bound - self.margin

    @property
    def soft(self) -> int:
        """Above this idle sandboxes end, and no new one starts."""
        return self.bound - 2 * self.margin


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A sandbox that could end for want of memory. `idle_for` is 0 while a call is in flight."""

    sandbox_id: str
    memory: int
    guaranteed: int
    idle_for: float


def parent_limit(total: int, reserve: float) -> int:
    """Return the bound of all sandboxes together on a machine of `total` bytes."""
    return int(total * (1 - reserve))


def fits(memory: Memory, engine: EngineName, starting: Iterable[EngineName]) -> bool:
    """Whether `engine` may start a sandbox while others are `starting`: twice an idle one must leave the reserve."""
    cost = 2 * idle_cost(engine) + sum(map(idle_cost, starting))
    return memory.used + cost <= memory.soft and memory.available - cost >= MACHINE_RESERVE * memory.total


def idle_cost(engine: EngineName) -> int:
    """Return what an idle sandbox takes of the machine."""
    return NEEDS[engine].idle


def pressure(memory: Memory) -> Pressure:
    """Say how full it is."""
    if memory.used > memory.hard:
        return "hard"
    return "soft" if memory.used > memory.soft else "none"


def next_look(memory: Memory) -> float:
    """Return the seconds until the next look, so that the bound cannot be reached between two."""
    free = max(0, memory.bound - memory.used)
    return min(_LATEST, max(_SOONEST, free / 2 / _FASTEST_FILL))


def longest_idle(candidates: Iterable[Candidate], wanted: int) -> list[str]:
    """Return idle sandboxes whose memory adds up to `wanted` bytes or more, the longest idle ones first."""
    chosen = []
    for one in sorted(candidates, key=lambda one: -one.idle_for):
        if wanted <= 0 or one.idle_for < IDLE_AFTER:
            break
        chosen.append(one.sandbox_id)
        wanted -= one.memory
    return chosen


def victims(candidates: Iterable[Candidate], wanted: int) -> list[str]:
    """Return whom to end so that `wanted` bytes come free: idle ones, then who is furthest above its guarantee.

    A busy sandbox at or below its guarantee is never chosen.
    """
    everyone = list(candidates)
    chosen = longest_idle(everyone, wanted)
    taken = set(chosen)
    wanted -= sum(one.memory for one in everyone if one.sandbox_id in taken)
    rest = [one for one in everyone if one.sandbox_id not in taken and one.memory > one.guaranteed]
    for one in sorted(rest, key=lambda one: one.guaranteed - one.memory):
        if wanted <= 0:
            break
        chosen.append(one.sandbox_id)
        wanted -= one.memory
    return chosen

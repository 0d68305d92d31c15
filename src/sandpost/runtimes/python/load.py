"""Which threads compute: told from what each used of the processor in the last second, beside what it could have had.

All threads of Python share one lock, and the sandbox a share of the processors that it cannot read: a thread that
never rests may get a thirtieth of a core. It gets about as much as whichever thread gets most, which is how it is told
from one that waits, or looks now and then whether it must go on waiting.
"""

from __future__ import annotations

_WINDOW = 0.75
"""Seconds of use that are judged at least."""
_EVEN = 0.25
"""Part of what the busiest thread uses that one uses at least which computes: turns are not dealt evenly."""
_BUSY = 0.5
"""Cores that a process uses at least in which a thread computes and nothing is short."""
_LATE = 0.04
"""Part of the time by which looks come late where the sandbox has no more processor: without any a tenth, and far less
than a hundredth in a process that mostly waits."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class _Sample:
    __slots__ = ("at", "late", "process", "threads")

    def __init__(self, at: float, late: float, process: float, threads: Mapping[int, float]) -> None:
        self.at = at
        self.late = late
        self.process = process
        self.threads = threads


class Load:
    """Looks at the clocks of a process and its threads, told in seconds. Pure."""

    def __init__(self) -> None:
        self._samples: list[_Sample] = []

    def forget(self) -> None:
        """There is nothing to judge."""
        self._samples.clear()

    def look(self, at: float, due: float, process: float, threads: Mapping[int, float]) -> None:
        """Take what the process and some of its threads have used until `at`; the look was `due` a little before."""
        samples = self._samples
        while len(samples) > 1 and at - samples[1].at >= _WINDOW:
            del samples[0]
        samples.append(_Sample(at, max(0.0, at - due), process, threads))

    def computing(self) -> set[int]:
        """Return the told threads that compute; none before there is a window of looks."""
        first, last = self._samples[0], self._samples[-1]
        wall = last.at - first.at
        if wall < _WINDOW:
            return set()
        late = sum(sample.late for sample in self._samples[1:])
        if last.process - first.process < _BUSY * wall and late < _LATE * wall:
            return set()
        used = {ident: cpu - first.threads.get(ident, 0.0) for ident, cpu in last.threads.items()}
        # What programs started themselves is not told apart, but no one thread of it used more than a core.
        others = min(wall, last.process - first.process - sum(used.values()))
        least = _EVEN * max(others, *used.values())
        return {ident for ident, cpu in used.items() if cpu > 0.0 and cpu >= least}

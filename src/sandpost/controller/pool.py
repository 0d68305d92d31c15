"""Pool arithmetic: how many sandboxes to keep ready, how many starts may run, how long a wait will take."""

import math

import msgspec

from sandpost.model.limits import Limits

TAU = 5.0
"""Seconds over which arrivals are averaged."""
AHEAD = 2.0
"""The pool holds the arrivals of so many seconds."""
GROWTH = 4
"""It never grows beyond so many times its setting."""
LONGEST_WAIT = 60


class Arrivals:
    """Arrivals a second, averaged exponentially. Times are a monotonic clock's seconds."""

    def __init__(self) -> None:
        self._weight = 0.0
        self._at = 0.0

    def add(self, now: float) -> None:
        """Count one."""
        self._weight = self._decayed(now) + 1
        self._at = max(now, self._at)

    def rate(self, now: float) -> float:
        """Return arrivals a second."""
        return self._decayed(now) / TAU

    def _decayed(self, now: float) -> float:
        return self._weight * math.exp(-max(0.0, now - self._at) / TAU)


class StartTimes:
    """How long a start takes, averaged over the last ones."""

    _SHARE = 0.2

    def __init__(self, guess: float = 0.1) -> None:
        self.mean = guess

    def add(self, seconds: float) -> None:
        """Take in one start's duration."""
        self.mean += self._SHARE * (seconds - self.mean)

    def rate(self, parallel: int) -> float:
        """Return starts a second."""
        return max(1, parallel) / max(self.mean, 0.001)


def target(setting: int, rate: float) -> int:
    """Return how many sandboxes to keep ready; a setting of 0 keeps none."""
    return max(setting, min(math.ceil(rate * AHEAD - 1e-9), setting * GROWTH))


def learned(setting: int, rate: float) -> int:
    """Return how many to keep ready of what is kept only where it was asked for lately, which the last ones decide."""
    return min(math.ceil(rate * AHEAD - 1e-9), setting * GROWTH)


def starts(*, waiting: int, pooled: int, target: int, starting: int, parallel: int) -> int:
    """Return how many more starts may begin now.

    Tenants that wait come first and get all places. Refilling alone takes one place while half the pool is
    there, so that it does not slow the calls it is made for, and all of them below that.
    """
    if waiting:
        return max(0, min(waiting - starting + max(0, target - pooled), parallel - starting))
    places = parallel if 2 * pooled < target else min(1, parallel)
    return max(0, min(target - pooled - starting, places - starting))


def retry_after(waiting: int, starts_a_second: float) -> int:
    """Return the whole seconds after which a place is likely."""
    return max(1, min(LONGEST_WAIT, math.ceil((waiting + 1) / max(starts_a_second, 0.001))))


def at_once(setting: int, pool_size: int) -> int:
    """Return how many sandboxes a `per_request` tenant may have at once: at most half the pool, at least one."""
    return max(1, min(setting, math.ceil(pool_size / 2)))


def share(limits: Limits, parts: int) -> Limits:
    """Return the limits of one of `parts` sandboxes, so that their sum does not exceed the tenant's."""
    parts = max(1, parts)
    return msgspec.structs.replace(
        limits,
        memory=limits.memory // parts,
        memory_guaranteed=limits.memory_guaranteed // parts,
        cpu=limits.cpu / parts,
        pids=limits.pids // parts,
    )


def fits_pool(limits: Limits, defaults: Limits) -> bool:
    """Whether a sandbox of the right kind that is started with `defaults` can serve a tenant of these limits.

    What is fixed at the start must be the same; a limit of processes that is fixed too is part of the kind.
    """
    return (
        limits.tmp == defaults.tmp and limits.tmp_inodes == defaults.tmp_inodes
        and limits.files == defaults.files and limits.programs == defaults.programs
    )  # fmt: skip

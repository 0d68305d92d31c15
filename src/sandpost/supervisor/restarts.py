"""When a part that ended is started again. Pure."""

from dataclasses import dataclass

LEAST, MOST, QUIET = 0.1, 5.0, 60.0


@dataclass(slots=True)
class Backoff:
    """Delays of one part: the first restart at once, then 0.1 s doubling to 5 s; after a quiet minute as at first."""

    delay: float = 0.0
    last: float | None = None

    def next(self, now: float) -> float:
        """Return how many seconds after `now`, the time of an end, the part is started again."""
        quiet = self.last is None or now - self.last >= QUIET
        self.delay = 0.0 if quiet else min(max(2 * self.delay, LEAST), MOST)
        self.last = now
        return self.delay

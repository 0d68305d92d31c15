"""What a tenant may write, and what was dropped beyond it. Pure: the time is an argument."""

from sandpost.logs import records

READ_FACTOR = 4
"""A flood is read at so many times the rate that is kept; the rest waits in its FIFO, where it delays its writer."""
READ_COST = 4096
"""Bytes that a read costs at least: tiny writes cost us a system call each, and are read in larger pieces later."""
RECORD_COST = 128
"""Bytes that a record costs beside its text: an empty line is a record too, and is stored with its fields."""
TELL_QUIET = 1.0
TELL_AT_MOST = 5.0


class Bucket:
    """A token bucket that may be overdrawn by one spending. `rate` 0: endless."""

    __slots__ = ("_at", "_level", "capacity", "rate")

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        self.rate = rate
        self.capacity = capacity
        self._level = capacity
        self._at = now

    def is_open(self, now: float) -> bool:
        """Whether anything may be spent now."""
        if not self.rate:
            return True
        if now > self._at:
            moved = (now - self._at) * self.rate
            if self._level > self.capacity:
                self._level = max(self.capacity, self._level - moved)
            else:
                self._level = min(self.capacity, self._level + moved)
            self._at = now
        return self._level > 0

    def spend(self, amount: float) -> None:
        """Take `amount`, into debt if need be."""
        if self.rate:
            self._level -= amount

    def grant(self, seconds: float) -> None:
        """Add what the rate lets through in so many seconds, beyond the capacity; unused it goes as fast as it came."""
        self._level += seconds * self.rate

    def wait(self, amount: float) -> float:
        """Return the seconds from the last look until `amount` (at most the capacity) is there."""
        if not self.rate:
            return 0.0
        return max(0.0, (min(amount, self.capacity) - self._level) / self.rate)


class Drops:
    """Lines that were dropped for one reason and not yet told."""

    __slots__ = ("_first", "_last", "lines")

    def __init__(self) -> None:
        self.lines = 0
        self._first = 0.0
        self._last = 0.0

    def add(self, lines: int, now: float) -> None:
        """Count `lines` dropped now."""
        if not lines:
            return
        if not self.lines:
            self._first = now
        self.lines += lines
        self._last = now

    def due(self, now: float) -> bool:
        """Whether to tell now: it has stopped, or has gone on for long."""
        if not self.lines:
            return False
        return now - self._last >= TELL_QUIET or now - self._first >= TELL_AT_MOST

    def sentence(self, reason: str) -> str:
        """Return what to tell."""
        return records.dropped(self.lines, max(0.1, self._last - self._first), reason)

    def clear(self) -> None:
        """Forget what was told."""
        self.lines = 0

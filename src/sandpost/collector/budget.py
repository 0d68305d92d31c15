"""What a tenant may write, and what was dropped beyond it. Pure: the time is an argument."""

READ_FACTOR = 4
"""A flood is read at so many times the rate that is kept; the rest waits in its FIFO, where it delays its writer."""
READ_COST = 4096
"""Bytes that a read costs at least: tiny writes cost us a system call each, and are read in larger pieces later."""
RECORD_COST = 128
"""Bytes that a record costs beside its text: an empty line is a record too, and is stored with its fields."""


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

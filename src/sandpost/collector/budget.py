"""What a tenant may write, and how often his FIFOs are read. Pure: the time is an argument."""

READ_FACTOR = 4
"""A flood is read at so many times the rate that is kept; the rest waits in its FIFO, where it delays its writer."""
READ_COST = 4096
"""Bytes that a read costs at least: tiny writes cost us a system call each, and are read in larger pieces later."""
RECORD_COST = 128
"""Bytes that a record costs beside its text: an empty line is a record too, and is stored with its fields."""
BUSY = 0.01
"""Seconds between two reads of a FIFO within which it is busy."""
REST = 0.004
"""Seconds for which a busy FIFO is left alone at most. A read costs as much as some dozens of lines."""
_GATHERED = 16 * 1024
"""Bytes that may come meanwhile at the rate at which they came: a FIFO holds 64 KiB, and a burst may be faster yet."""
_LEAST_REST = 0.001
"""Seconds; timers are no finer."""


def rest_after(moved: int, since: float) -> float:
    """Return the seconds for which a FIFO is left alone after a read of `moved` bytes, `since` seconds after the one
    before; 0: what comes by itself, and what comes fast, is read at once."""
    if since >= BUSY or moved >= _GATHERED:
        return 0.0
    rest = min(REST, since * _GATHERED / max(moved, 1))
    return rest if rest >= _LEAST_REST else 0.0


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

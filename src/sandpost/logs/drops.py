"""Lines that were dropped: counted, and told in a sentence. Pure: the time is an argument."""

from sandpost.model.units import format_size

TELL_QUIET = 1.0
TELL_AT_MOST = 5.0


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
        return dropped(self.lines, max(0.1, self._last - self._first), reason)

    def clear(self) -> None:
        """Forget what was told."""
        self.lines = 0


def dropped(lines: int, seconds: float, reason: str) -> str:
    """Return the sentence that tells of dropped lines, such as `1,204 lines dropped in 3.0 s: over 1 MiB/s`."""
    return f"{lines:,} {'line' if lines == 1 else 'lines'} dropped in {seconds:.1f} s: {reason}"


def over_rate(rate: int) -> str:
    """Return the reason of lines dropped beyond `rate` bytes a second."""
    size = format_size(rate)
    number = size.rstrip("BKMGTi")
    return f"over {number} {size[len(number) :]}/s"

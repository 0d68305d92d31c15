"""What the desk knows of each engine by itself: one that is slow or fails takes nothing from the others' tenants."""

from dataclasses import dataclass, field

from sandpost.controller.pool import StartTimes

_BACKOFF = 0.05
_BACKOFF_MAX = 5.0
_GIVE_UP_AFTER = 3


@dataclass(slots=True)
class Line:
    """One engine's starts. Times are a monotonic clock's seconds."""

    start_times: StartTimes = field(default_factory=StartTimes)
    not_before: float = 0.0
    """Until then nothing is started."""
    _failures: int = 0

    def worked(self, seconds: float) -> None:
        """A start is done, after `seconds`."""
        self.start_times.add(seconds)
        self._failures, self.not_before = 0, 0.0

    def failed(self, now: float) -> bool:
        """A start failed: the next one waits, longer each time. Whether so many failed that those who wait give up."""
        self._failures += 1
        self.not_before = now + min(_BACKOFF * 2**self._failures, _BACKOFF_MAX)
        return self._failures >= _GIVE_UP_AFTER

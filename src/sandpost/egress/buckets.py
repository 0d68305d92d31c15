"""A token bucket: so much at once, so much a second. Pure; the clock is the caller's."""


class Bucket:
    """Holds up to `most` and gains `rate` a second. Starts full."""

    __slots__ = ("_at", "_have", "_most", "_rate")

    def __init__(self, most: float, rate: float, now: float) -> None:
        self._most = most
        self._rate = rate
        self._have = most
        self._at = now

    def take(self, amount: float, now: float) -> bool:
        """Take `amount` if it is there; say whether it was."""
        self._gain(now)
        if self._have < amount:
            return False
        self._have -= amount
        return True

    def share(self, now: float) -> float:
        """Return how full it is, 0 to 1."""
        self._gain(now)
        return self._have / self._most

    def change(self, most: float, rate: float) -> None:
        """Take up other sizes; what is in it stays, as far as it fits."""
        self._most, self._rate = most, rate
        self._have = min(self._have, most)

    def _gain(self, now: float) -> None:
        # A clock that is read at two places may seem to go back a little.
        if now > self._at:
            self._have = min(self._most, self._have + (now - self._at) * self._rate)
            self._at = now

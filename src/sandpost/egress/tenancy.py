"""What egress keeps of a tenant over all its sandboxes: what it may ask, what it learned, what it has open. Pure."""

from sandpost.egress.budget import Budget
from sandpost.egress.learned import Learned

FORGET = 60.0
"""Seconds without a sandbox after which a tenant is forgotten: its bounds must not start anew with each sandbox."""


class Tenancy:
    """One tenant."""

    __slots__ = ("budget", "learned", "name", "sandboxes", "streams", "unused_since")

    def __init__(self, name: str, rate: float, now: float) -> None:
        self.name = name
        self.budget = Budget(rate, now)
        self.learned = Learned()
        # Counts of what is under way.
        self.sandboxes = 0
        self.streams = 0
        self.unused_since = now


class Tenancies:
    """All tenants that have, or had lately, a sandbox."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._all: dict[str, Tenancy] = {}

    def __len__(self) -> int:
        return len(self._all)

    def get(self, name: str, now: float) -> Tenancy:
        """Return the tenant's, made if need be."""
        found = self._all.get(name)
        if found is None:
            found = self._all[name] = Tenancy(name, self._rate, now)
        return found

    def set_rate(self, rate: float) -> None:
        """Allow every tenant `rate` questions a second."""
        self._rate = rate
        for tenancy in self._all.values():
            tenancy.budget.set_rate(rate)

    def forget(self, now: float) -> list[str]:
        """Drop tenants without a sandbox for a while; return their names."""
        gone = [one.name for one in self._all.values() if not one.sandboxes and now - one.unused_since > FORGET]
        for name in gone:
            del self._all[name]
        return gone

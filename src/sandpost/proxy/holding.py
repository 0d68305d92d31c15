"""Programs held in memory while they come or wait for their sandbox: bounded for the worker, fair to tenants."""

from collections.abc import Callable
from typing import Protocol

from sandpost.model.errors import NoRoom
from sandpost.model.units import format_size


class Holder(Protocol):
    """Whoever holds bytes of a program."""

    def give_up(self) -> None:
        """End with a 503; what is held is dropped within the call."""


class Holding:
    """Counts what is held. Beyond `bound()` bytes the tenant that holds most gives up, its oldest first.

    `soon(work)` runs `work` when the event loop turns: who adds is not told to give up inside its own call, so that
    the bound can be passed by what one turn of the loop takes in.
    """

    def __init__(self, soon: Callable[[Callable[[], None]], object], bound: Callable[[], int]) -> None:
        self._soon = soon
        self._bound = bound
        # Holders of each tenant with their bytes, oldest first; a tenant's sum; the sum of all.
        self._tenants: dict[str, dict[Holder, int]] = {}
        self._sums: dict[str, int] = {}
        self.size = 0
        self._relieving = False

    def add(self, tenant: str, holder: Holder, size: int) -> None:
        """`holder` holds `size` bytes more."""
        own = self._tenants.setdefault(tenant, {})
        own[holder] = own.get(holder, 0) + size
        self._sums[tenant] = self._sums.get(tenant, 0) + size
        self.size += size
        if self.size > self._bound() and not self._relieving:
            self._relieving = True
            self._soon(self._relieve)

    def drop(self, tenant: str, holder: Holder) -> None:
        """`holder` holds nothing more."""
        own = self._tenants.get(tenant)
        size = own.pop(holder, 0) if own is not None else 0
        self.size -= size
        if own:
            self._sums[tenant] -= size
        elif own is not None:
            del self._tenants[tenant], self._sums[tenant]

    def _relieve(self) -> None:
        self._relieving = False
        while self._sums and self.size > self._bound():
            tenant = max(self._sums, key=self._sums.__getitem__)
            holder = next(iter(self._tenants[tenant]))
            self.drop(tenant, holder)
            holder.give_up()


def too_many_programs(bound: int) -> NoRoom:
    """Return the error of a program that a worker holds no longer, `bound` bytes being held in all."""
    return NoRoom(
        f"this worker holds {format_size(bound)} of programs that are still coming or wait for their sandbox, and this "
        "tenant most of it: send them one after another, or raise `http.max_programs`",
        retry_after=1,
        limit=bound,
        setting="http.max_programs",
    )


def disk_behind() -> NoRoom:
    """Return the error of a program that comes while the disk has not taken those before."""
    return NoRoom("programs come faster than the disk of this host takes them: try again", retry_after=1)

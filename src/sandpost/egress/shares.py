"""What tenants may have under way at once: each by itself, and all together, where a modest one finds room. Pure."""

from collections.abc import Callable
from functools import partial

GiveUp = Callable[[], object]


class Shares:
    """Counts what is under way. Of `most` in all, the tenant that has most gives up its oldest when one comes.

    So whoever has nothing under way is never refused, whatever others have.
    """

    def __init__(self, each: int, most: int, what: str) -> None:
        self._each = each
        self._most = most
        self._what = what
        # Of each tenant how to give up what it has, oldest first.
        self._tenants: dict[str, dict[object, GiveUp]] = {}
        self._count = 0

    @property
    def given_up(self) -> str:
        """Why something was given up."""
        return f"all tenants together have {self._most} {self._what}, and none has more than this one"

    def refusal(self, tenant: str) -> str | None:
        """Return why a tenant may not have one more; None if it may."""
        own = len(self._tenants.get(tenant, ()))
        if own >= self._each:
            return f"this tenant has {self._each} {self._what} already"
        if self._count >= self._most and own >= len(self._tenants[self._largest()]):
            return self.given_up
        return None

    def add(self, tenant: str, give_up: GiveUp) -> Callable[[], None]:
        """One more is under way, which `refusal` has nothing against; return what is to be called when it is over."""
        if self._count >= self._most:
            largest = self._largest()
            oldest = next(iter(self._tenants[largest]))
            giving_up = self._tenants[largest][oldest]
            self._drop(largest, oldest)
            giving_up()
        key = object()
        self._tenants.setdefault(tenant, {})[key] = give_up
        self._count += 1
        return partial(self._drop, tenant, key)

    def _largest(self) -> str:
        return max(self._tenants, key=lambda tenant: len(self._tenants[tenant]))

    def _drop(self, tenant: str, key: object) -> None:
        own = self._tenants.get(tenant, {})
        if own.pop(key, None) is not None:
            self._count -= 1
            if not own:
                del self._tenants[tenant]

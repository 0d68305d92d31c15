"""A tenant's sandboxes of several sets of modules: how many at once, and which of them leaves for one more."""

from collections.abc import Collection

from sandpost.controller import aging
from sandpost.controller.lifecycle import Sandbox
from sandpost.model.errors import TooManySets
from sandpost.model.messages import RouteKey

SETS = 4
"""Sets of modules that a tenant has sandboxes of at once, besides those of none."""


def leaves_for_another(there: list[Sandbox], wanted: Collection[RouteKey], tenant: str, now: float) -> Sandbox | None:
    """Return which of those of some set that are `there` leaves, for one besides those that are `wanted` already.

    None if the bound is not met; `TooManySets` if it is and all have calls.
    """
    if len(there) + len(set(wanted) - {one.key for one in there}) < SETS:
        return None
    idle = [one for one in there if aging.idle_for(one, now) >= aging.QUIET and one.replacing is None]
    if not idle:
        raise TooManySets(
            f"`{tenant}` has calls in sandboxes of {SETS} different sets of modules: let programs choose the same "
            "ones, or try again",
            retry_after=1,
        )
    return min(idle, key=lambda one: one.last_call_at)

"""Sandboxes of tenants, for whoever must choose which of them end for want of memory."""

from collections.abc import Iterable, Iterator

from sandpost.controller import aging, room
from sandpost.controller.lifecycle import Fleet, Sandbox
from sandpost.model.engines import NEEDS


def candidates(fleet: Fleet, now: float) -> Iterator[room.Candidate]:
    """Return all, for `room` to choose from while all of them together have too much."""
    for sandboxes in fleet.tenants.values():
        shared = sum(one.memory for one in sandboxes.values() if not one.record.exclusive)
        for one in sandboxes.values():
            guaranteed = one.record.limits.memory_guaranteed
            if not one.record.exclusive and one.memory < shared:
                # Its part of what is guaranteed to the tenant's sandboxes together.
                guaranteed = guaranteed * one.memory // shared
            guaranteed += NEEDS[one.record.engine].memory
            yield room.Candidate(
                sandbox_id=one.sandbox_id,
                memory=one.memory,
                guaranteed=guaranteed,
                idle_for=aging.idle_for(one, now) if one.phase == "assigned" else 0.0,
            )


def largest(beside: Iterable[Sandbox]) -> list[Sandbox]:
    """Return which of one group end since it has more than its limit is now: the largest, until the others fit.

    One at least: what is known of their memory is up to a second old.
    """
    # What the engine needs is no part of the limit.
    net = {one.sandbox_id: one.memory - NEEDS[one.record.engine].memory for one in beside}
    chosen: list[Sandbox] = []
    for one in sorted(beside, key=lambda one: -net[one.sandbox_id]):
        if chosen and sum(net.values()) <= one.record.limits.memory:
            break
        chosen.append(one)
        del net[one.sandbox_id]
    return chosen

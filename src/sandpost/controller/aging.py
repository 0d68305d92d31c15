"""When a sandbox has had its time: idle, old, used up, drained, or left over from a call that is finished."""

from dataclasses import dataclass
from typing import Literal

from sandpost.controller.lifecycle import Sandbox
from sandpost.model.ends import End

GRACE = 2.0
"""Seconds after `Leaving` in which a call that had just begun shows in a proxy's report (sent each second)."""
DRAIN_SLACK = 5.0
"""Seconds beyond the deadline of its last call that a draining sandbox has."""
EXCLUSIVE_IDLE = 10.0
"""Seconds after which an exclusive sandbox without its call is over, though nobody said `Finished`."""
QUIET = 2.0
"""A sandbox without a call for so long can leave without a successor."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`leave`: no new calls, then end. `replace`: make a successor first. `end`: now."""

    step: Literal["leave", "replace", "end"]
    word: End
    message: str


def verdict(sandbox: Sandbox, now: float) -> Verdict | None:
    """Return what has to happen to an assigned or draining sandbox; None if nothing."""
    if sandbox.phase == "draining":
        return _draining(sandbox, now)
    if sandbox.phase != "assigned":
        return None
    quiet = idle_for(sandbox, now)
    limits = sandbox.record.limits
    if sandbox.record.exclusive:
        over = quiet >= EXCLUSIVE_IDLE
        return Verdict("end", "done", "done: its call is over") if over else None
    if limits.idle and quiet >= limits.idle:
        return Verdict("leave", "idle", f"idle: no call for {limits.idle:g} s")
    step: Literal["leave", "replace"] = "leave" if quiet >= QUIET else "replace"
    assigned_at = sandbox.record.assigned_at
    age = 0.0 if assigned_at is None else now - assigned_at
    if limits.age and age >= limits.age:
        return Verdict(step, "age", f"age: {limits.age:g} s reached")
    if limits.count and sandbox.calls >= limits.count:
        return Verdict(step, "count", f"count: {limits.count} calls reached")
    return None


def idle_for(sandbox: Sandbox, now: float) -> float:
    """Return seconds without a call; 0 while one is in flight."""
    return 0.0 if sandbox.calls_in_flight else max(0.0, now - sandbox.last_call_at)


def _draining(sandbox: Sandbox, now: float) -> Verdict | None:
    since = now - sandbox.leaving_since
    word, message = sandbox.leaving
    if since >= GRACE and not sandbox.calls_in_flight:
        return Verdict("end", word, message)
    if since >= sandbox.record.limits.deadline + DRAIN_SLACK:
        return Verdict("end", word, message)
    return None

"""When a sandbox has had its time."""

from typing import Any

import pytest

from sandpost.controller.aging import DRAIN_SLACK, EXCLUSIVE_IDLE, GRACE, verdict
from sandpost.controller.lifecycle import Sandbox
from sandpost.controller.record import ProxyKey, Record
from sandpost.model.limits import Limits

PROXY = ProxyKey(1, 0)


def sandbox(
    phase: Any = "assigned", *, calls: int = 0, in_flight: int = 0, last: float = 0.0, **limits: Any
) -> Sandbox:
    """A sandbox that was assigned at 1 and called last at `last`."""
    made = Sandbox(
        Record(
            sandbox_id="s", group_id="g", slot=0, phase=phase, runtime="node", image="i", tenant="acme",
            limits=Limits(**limits), started_at=1.0, assigned_at=1.0,
        )
    )  # fmt: skip
    made.calls, made.last_call_at = calls, last
    if in_flight:
        made.in_flight[PROXY] = in_flight
    return made


@pytest.mark.parametrize(
    ("now", "last", "step"), [(100.0, 99.0, None), (101.0, 100.0, "replace"), (101.0, 10.0, "leave")]
)
def test_an_old_sandbox_is_replaced_while_it_is_called_and_leaves_when_it_is_not(
    now: float, last: float, step: str | None
) -> None:
    found = verdict(sandbox(last=last, age=100.0, idle=0), now)
    assert (found and found.step) == step
    if found is not None:
        assert (found.word, found.message) == ("age", "age: 100 s reached")


def test_a_limit_of_zero_is_none() -> None:
    assert verdict(sandbox(calls=1 << 40, idle=0, age=0, count=0), 1e9) is None


def test_a_call_in_flight_keeps_a_sandbox_from_being_idle() -> None:
    assert verdict(sandbox(in_flight=1, idle=5.0), 1000.0) is None
    found = verdict(sandbox(idle=5.0), 5.0)
    assert found is not None
    assert (found.step, found.word) == ("leave", "idle")


def test_a_draining_sandbox_ends_when_its_calls_are_over_or_had_their_deadline() -> None:
    quiet, busy = sandbox("draining", deadline=10.0), sandbox("draining", in_flight=1, deadline=10.0)
    for one in (quiet, busy):
        one.leaving = ("age", "age: 1 s reached")
    assert verdict(quiet, GRACE - 0.1) is None
    found = verdict(quiet, GRACE)
    assert found is not None
    assert (found.step, found.word) == ("end", "age")
    assert verdict(busy, 10.0 + DRAIN_SLACK - 0.1) is None
    assert verdict(busy, 10.0 + DRAIN_SLACK) is not None


def test_an_exclusive_sandbox_whose_call_nobody_ended_is_done() -> None:
    one = sandbox(idle=0)
    one.record = Record(**{**{name: getattr(one.record, name) for name in Record.__struct_fields__}, "exclusive": True})
    assert verdict(one, EXCLUSIVE_IDLE - 0.1) is None
    found = verdict(one, EXCLUSIVE_IDLE)
    assert found is not None
    assert (found.step, found.word) == ("end", "done")

"""Repeated fatal ends hold a tenant back; a single one never does."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from sandpost.controller.holdback import ENDS, LONGEST, QUIET, WINDOW, HoldBack


def crash(hold: HoldBack, now: float, times: int = ENDS) -> float:
    for _ in range(times):
        hold.fatal("a", now)
    return hold.held_for("a", now)


def test_four_ends_hold_nobody_and_the_fifth_does() -> None:
    hold = HoldBack()
    assert crash(hold, 100.0, 4) == 0
    assert crash(hold, 109.9, 1) == 1.0
    assert hold.held_for("b", 109.9) == 0


def test_ends_more_than_the_window_apart_do_not_add_up() -> None:
    hold = HoldBack()
    assert crash(hold, 100.0, 4) == 0
    assert crash(hold, 100.0 + WINDOW, 4) == 0


def test_each_hold_is_twice_as_long_up_to_thirty_seconds() -> None:
    hold = HoldBack()
    now, holds = 100.0, []
    for _ in range(7):
        holds.append(crash(hold, now))
        now += holds[-1]
        assert hold.held_for("a", now) == 0
        assert crash(hold, now, 1) == 0, "a single end after a hold holds again"
    assert holds == [1, 2, 4, 8, 16, 30, 30]


def test_quiet_minutes_forgive() -> None:
    hold = HoldBack()
    for now in (100.0, 200.0 - 41, 300.0 - 81):
        crash(hold, now)
    assert hold.held_for("a", 219.0) == 4.0
    assert crash(hold, 223.0 + 3 * QUIET) == 1.0


def test_who_is_quiet_is_forgotten() -> None:
    hold = HoldBack()
    crash(hold, 100.0)
    hold.prune(105.0)
    assert len(hold) == 1
    hold.prune(102.0 + 2 * QUIET)
    assert len(hold) == 0


@given(st.lists(st.floats(0.01, 30.0), min_size=1, max_size=60))
def test_a_hold_needs_five_ends_in_ten_seconds_and_never_lasts_over_thirty(gaps: list[float]) -> None:
    hold = HoldBack()
    now, since = 0.0, 0
    times: list[float] = []
    for gap in gaps:
        now += gap
        before = hold.held_for("a", now)
        hold.fatal("a", now)
        times.append(now)
        held = hold.held_for("a", now)
        assert held <= LONGEST
        if held > before:
            counted = times[since:]
            assert len(counted) >= ENDS
            assert counted[-1] - counted[-ENDS] < WINDOW
            since = len(times)
    assert all(early < late for early, late in pairwise(times))

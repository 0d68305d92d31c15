"""When a part that ended is started again."""

from hypothesis import given
from hypothesis import strategies as st

from sandpost.supervisor.restarts import LEAST, MOST, QUIET, Backoff


def test_the_first_restart_is_at_once_then_they_are_further_and_further_apart() -> None:
    backoff = Backoff()
    assert [backoff.next(float(n)) for n in range(9)] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_after_a_quiet_minute_it_is_at_once_again() -> None:
    backoff = Backoff()
    for n in range(5):
        backoff.next(float(n))
    assert backoff.next(4.0 + QUIET - 0.1) > 0
    assert backoff.next(4.0 + 3 * QUIET) == 0.0


@given(st.lists(st.floats(0, 200), min_size=1, max_size=50))
def test_whatever_happens_delays_stay_within_bounds_and_no_minute_has_many_restarts(gaps: list[float]) -> None:
    backoff = Backoff()
    now = 0.0
    starts = []
    for gap in gaps:
        now += gap
        delay = backoff.next(now)
        assert delay == 0.0 or LEAST <= delay <= MOST
        now += delay
        starts.append(now)
    for start in starts:
        # 7 doublings, then one in 5 s.
        assert sum(start <= other < start + QUIET for other in starts) <= 8 + QUIET / MOST

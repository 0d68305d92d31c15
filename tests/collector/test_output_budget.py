from hypothesis import given
from hypothesis import strategies as st

from sandpost.collector.budget import BUSY, REST, Bucket, rest_after
from sandpost.logs.drops import Drops


@given(
    st.floats(1, 1e7),
    st.floats(1, 1e7),
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1e5)), max_size=50),
)
def test_spent_never_exceeds_burst_rate_and_one_overdraft(
    rate: float, capacity: float, steps: list[tuple[float, float]]
) -> None:
    bucket, now, spent, largest = Bucket(rate, capacity, 0.0), 0.0, 0.0, 0.0
    for wait, amount in steps:
        now += wait
        if bucket.is_open(now):
            bucket.spend(amount)
            spent += amount
            largest = max(largest, amount)
    assert spent <= capacity + rate * now + largest + 1e-3 * (1 + spent)


def test_wait_says_when_it_is_open_again() -> None:
    bucket = Bucket(100.0, 50.0, 0.0)
    bucket.spend(150.0)
    assert not bucket.is_open(0.0)
    wait = bucket.wait(50.0)
    assert wait == 1.5
    assert not bucket.is_open(0.9)
    assert bucket.is_open(wait)
    assert bucket.wait(1000.0) == 0.0  # never more than fits


def test_what_is_granted_exceeds_the_capacity_and_goes_as_fast_as_it_came() -> None:
    bucket = Bucket(100.0, 50.0, 0.0)
    bucket.grant(3.0)
    bucket.spend(100.0)
    assert bucket.is_open(1.0)
    bucket.spend(151.0)
    assert bucket.wait(0.0) == 0.01
    bucket.grant(10.0)
    assert bucket.is_open(100.0)
    bucket.spend(50.0)
    assert not bucket.is_open(100.0)


def test_rate_of_nothing_is_endless() -> None:
    bucket = Bucket(0, 0, 0.0)
    bucket.spend(1e12)
    assert bucket.is_open(0.0)
    assert bucket.wait(1e12) == 0.0


def test_drops_are_told_when_they_stop_or_go_on_for_long() -> None:
    drops = Drops()
    assert not drops.due(100.0)
    drops.add(0, 1.0)
    assert not drops.due(100.0)
    drops.add(3, 10.0)
    assert not drops.due(10.9)
    assert drops.due(11.0)
    for tenth in range(46):
        drops.add(1, 10.5 + tenth / 10)
    assert drops.due(15.0)
    assert drops.sentence("over 1 MiB/s") == "49 lines dropped in 5.0 s: over 1 MiB/s"
    drops.clear()
    assert not drops.due(100.0)


@given(st.integers(0, 1 << 16), st.floats(1e-6, 1.0))
def test_a_busy_fifo_rests_for_as_long_as_it_has_room_at_its_rate(moved: int, since: float) -> None:
    rest = rest_after(moved, since)
    assert 0 <= rest <= REST
    # A quarter of what a FIFO holds.
    assert rest * moved / since <= 16 * 1024 + 1
    if since >= BUSY:
        assert rest == 0


def test_lines_that_come_one_by_one_are_gathered_and_those_alone_or_in_a_burst_are_not() -> None:
    assert rest_after(100, 0.0002) == REST
    assert rest_after(100, 0.5) == 0
    assert rest_after(10_000, 0.0002) == 0
    assert rest_after(64 * 1024, 0.009) == 0

"""Pool arithmetic."""

from hypothesis import given
from hypothesis import strategies as st

from sandpost.controller import pool
from sandpost.controller.lifecycle import kind_of
from sandpost.model.limits import Limits, MiB

small = st.integers(0, 50)


@given(setting=small, rate=st.floats(0, 1e6))
def test_the_pool_is_at_least_its_setting_and_at_most_four_times_it(setting: int, rate: float) -> None:
    assert setting <= pool.target(setting, rate) <= pool.GROWTH * setting


def test_the_pool_grows_with_the_rate_of_arrivals() -> None:
    assert [pool.target(10, rate) for rate in (0, 5, 7.5, 25)] == [10, 10, 15, 40]


@given(waiting=small, pooled=small, target=small, starting=small, parallel=st.integers(1, 8))
def test_starts_are_bounded_and_never_more_than_needed(
    waiting: int, pooled: int, target: int, starting: int, parallel: int
) -> None:
    more = pool.starts(waiting=waiting, pooled=pooled, target=target, starting=starting, parallel=parallel)
    assert more >= 0
    assert more == 0 or starting + more <= parallel
    assert more == 0 or starting + more <= waiting + max(0, target - pooled)
    if waiting > starting and starting < parallel:
        assert more > 0, "somebody waits, a place is free, and nothing is started"
    if not waiting and pooled < target and starting == 0:
        assert more > 0, "the pool is never refilled"


def test_refilling_alone_takes_one_place_while_half_the_pool_is_there() -> None:
    assert pool.starts(waiting=0, pooled=5, target=10, starting=0, parallel=3) == 1
    assert pool.starts(waiting=0, pooled=5, target=10, starting=1, parallel=3) == 0
    assert pool.starts(waiting=0, pooled=4, target=10, starting=1, parallel=3) == 2
    assert pool.starts(waiting=1, pooled=0, target=10, starting=1, parallel=3) == 2


def test_arrivals_are_averaged_and_forgotten() -> None:
    arrivals = pool.Arrivals()
    for tenth in range(300):
        arrivals.add(tenth / 10)
    assert 9 < arrivals.rate(29.9) < 11
    assert arrivals.rate(60.0) < 0.1


@given(st.lists(st.floats(0, 100), max_size=50), st.floats(0, 200))
def test_the_rate_is_bounded_by_what_arrived(gaps: list[float], later: float) -> None:
    arrivals = pool.Arrivals()
    now = 0.0
    for gap in gaps:
        now += gap
        arrivals.add(now)
    assert 0 <= arrivals.rate(now + later) <= len(gaps) / pool.TAU + 1e-9


def test_start_times_are_learnt() -> None:
    times = pool.StartTimes(guess=1.0)
    for _ in range(50):
        times.add(0.1)
    assert 19 < times.rate(2) < 20.1


@given(waiting=st.integers(0, 10_000), rate=st.floats(0, 1000))
def test_retry_after_is_a_sensible_number(waiting: int, rate: float) -> None:
    assert 1 <= pool.retry_after(waiting, rate) <= pool.LONGEST_WAIT


def test_retry_after_grows_with_the_queue() -> None:
    assert [pool.retry_after(waiting, 25) for waiting in (0, 24, 25, 500)] == [1, 1, 2, 21]


@given(setting=st.integers(1, 20), size=st.integers(0, 40))
def test_a_tenant_takes_at_most_half_the_pool(setting: int, size: int) -> None:
    count = pool.at_once(setting, size)
    assert 1 <= count <= setting
    assert count == 1 or count <= (size + 1) // 2


@given(parts=st.integers(1, 16), memory=st.integers(1, 1 << 40), cpu=st.floats(0.1, 64), pids=st.integers(1, 10_000))
def test_shares_add_up_to_no_more_than_the_whole(parts: int, memory: int, cpu: float, pids: int) -> None:
    whole = Limits(memory=memory, cpu=cpu, pids=pids)
    part = pool.share(whole, parts)
    assert part.memory * parts <= whole.memory
    assert part.cpu * parts <= whole.cpu * (1 + 1e-9)
    assert part.pids * parts <= whole.pids
    assert part.deadline == whole.deadline


def test_what_is_fixed_at_the_start_decides_whether_the_pool_fits() -> None:
    assert pool.fits_pool(Limits(memory=1 * MiB, cpu=0.5, pids=8, deadline=1), Limits())
    for other in (Limits(tmp=1 * MiB), Limits(tmp_inodes=1), Limits(files=64), Limits(programs=1)):
        assert not pool.fits_pool(other, Limits())


def test_a_limit_of_processes_makes_a_kind_of_its_own_where_it_is_fixed_at_the_start() -> None:
    assert kind_of("runc", "node", Limits(pids=8)) == kind_of("runc", "node", Limits())
    # gVisor counts a program's processes itself.
    assert kind_of("runsc", "node", Limits(pids=8)) != kind_of("runsc", "node", Limits())

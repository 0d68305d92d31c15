"""Calls at once and a second, counted over several workers in one table."""

import multiprocessing
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandpost.model.errors import SandpostError, TooManyCalls
from sandpost.model.limits import Limits
from sandpost.proxy import quota as quota_module
from sandpost.proxy.quota import Quota, Seat


def test_calls_are_counted_over_all_workers(tmp_path: Path) -> None:
    first, second = Quota(str(tmp_path), 2), Quota(str(tmp_path), 2)
    limits = Limits(calls=3)
    seats = [first.begin("acme", limits, 1), second.begin("acme", limits, 1), second.begin("acme", limits, 1)]
    for each in (first, second):
        with pytest.raises(TooManyCalls) as refused:
            each.begin("acme", limits, 1)
        assert "limits.calls" in refused.value.message
        assert each.in_flight("acme") == 3
    first.begin("other", limits, 1)
    first.end(seats[0])
    second.begin("acme", limits, 1)
    first.close()
    second.close()


def test_calls_a_second_are_counted_over_all_workers(tmp_path: Path) -> None:
    first, second = Quota(str(tmp_path), 2), Quota(str(tmp_path), 2)
    limits = Limits(rate=3)
    for each in (first, second, first):
        each.end(each.begin("acme", limits, 100))
    with pytest.raises(TooManyCalls) as refused:
        second.begin("acme", limits, 100)
    assert (refused.value.details["setting"], refused.value.retry_after) == ("limits.rate", 1)
    second.end(second.begin("acme", limits, 101.4))
    first.close()
    second.close()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=120), st.integers(1, 12))
def test_no_second_whenever_it_begins_has_half_as_many_calls_again(pauses: list[float], rate: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        workers = [Quota(folder, 2), Quota(folder, 2)]
        now, begun = 50.0, []
        for number, pause in enumerate(pauses):
            now += pause**4
            try:
                workers[number % 2].begin("acme", Limits(rate=rate, calls=1000), now)
            except TooManyCalls:
                continue
            begun.append(now)
        most = max(sum(start <= each < start + 1 for each in begun) for start in begun)
        assert most <= 1.5 * rate + 1
        for each in workers:
            each.close()


def test_calls_at_an_even_rate_all_pass(tmp_path: Path) -> None:
    quota = Quota(str(tmp_path), 1)
    for number in range(100):
        quota.end(quota.begin("acme", Limits(rate=10), 7 + number / 10))
    quota.close()


def _die_with_calls(folder: str) -> None:
    held = Quota(folder, 2)
    for _ in range(5):
        held.begin("acme", Limits(), 1)
    os._exit(9)


def test_a_dead_workers_calls_are_forgotten_by_whoever_takes_its_place(tmp_path: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=_die_with_calls, args=(str(tmp_path),))
    child.start()
    child.join()
    assert child.exitcode == 9
    fresh = Quota(str(tmp_path), 2)
    seat = fresh.begin("acme", Limits(calls=1), 2)
    assert fresh.in_flight("acme") == 1
    fresh.end(seat)
    fresh.close()


def test_a_predecessor_that_drains_keeps_its_count(tmp_path: Path) -> None:
    old = Quota(str(tmp_path), 1)
    old.begin("acme", Limits(), 1)
    new = Quota(str(tmp_path), 1)
    with pytest.raises(TooManyCalls):
        new.begin("acme", Limits(calls=1), 1)
    with pytest.raises(SandpostError):
        Quota(str(tmp_path), 1)
    old.close()
    new.end(new.begin("acme", Limits(calls=1), 1))
    new.close()


def test_rows_go_to_other_tenants_after_a_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_module, "ROWS", 16)
    quota = Quota(str(tmp_path), 1)
    for n in range(16):
        quota.end(quota.begin(f"t{n}", Limits(), 1000))
    crowded = quota.begin("late", Limits(), 1001)
    assert crowded.row == -1, "a row that was used a second ago was given away"
    quota.end(crowded)
    rested = quota.begin("later", Limits(), 2000)
    assert rested.row >= 0
    # Whoever had the row gets another one.
    seats = [quota.begin(f"t{n}", Limits(calls=1), 2000) for n in range(16)]
    assert len({seat.row for seat in seats if seat.row >= 0} | {rested.row}) >= 16
    quota.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 3), st.booleans()), max_size=60))
def test_no_order_of_calls_loses_count(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, bool]]
) -> None:
    folder = str(tmp_path_factory.mktemp("table"))
    workers = [Quota(folder, 2), Quota(folder, 2)]
    limits = Limits(calls=4)
    held: dict[tuple[int, int], list[Seat]] = {}
    for worker, tenant, begins in steps:
        seats = held.setdefault((worker, tenant), [])
        alive = sum(len(held.get((each, tenant), [])) for each in (0, 1))
        if begins:
            if alive < 4:
                seats.append(workers[worker].begin(f"t{tenant}", limits, 5))
            else:
                with pytest.raises(TooManyCalls):
                    workers[worker].begin(f"t{tenant}", limits, 5)
        elif seats:
            workers[worker].end(seats.pop())
    for (worker, tenant), seats in held.items():
        if seats:
            expected = sum(len(held.get((each, tenant), [])) for each in (0, 1))
            assert workers[worker].in_flight(f"t{tenant}") == expected
    for each in workers:
        each.close()

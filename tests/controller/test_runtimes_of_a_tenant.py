"""A tenant's sandboxes of several runtimes: one group, one after another, and nobody else pays for a failure."""

import pytest

from sandpost.controller.lifecycle import Forbidden
from sandpost.model.messages import Granted, Refused, RouteKey
from support.desk_bed import PROXY, Bench


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.desk.pump(1.0)
    made.finish()
    return made


def test_a_further_runtime_starts_in_the_tenants_group(bench: Bench) -> None:
    bench.ask("a", "node")
    bench.finish()
    bench.ask("a", "python")
    bench.finish()
    assert len(bench.groups("a")) == 2
    assert len(set(bench.groups("a"))) == 1
    assert set(bench.fleet.routes) == {("a", "node", ""), ("a", "python", "")}


def test_two_first_calls_at_once_come_into_one_group(bench: Bench) -> None:
    bench.ask("b", "python")
    bench.ask("b", "node")
    assert [one for one in bench.host.told if isinstance(one, Granted)] == []
    bench.finish()
    assert len(bench.groups("b")) == 2
    assert len(set(bench.groups("b"))) == 1


def test_what_stands_in_a_tenants_group_is_nobody_elses(bench: Bench) -> None:
    bench.ask("a", "node")
    bench.finish()
    bench.ask("a", "python")
    (joined,) = [one for one in bench.host.to_start if one.joins]
    bench.desk.lost(PROXY)
    bench.ask("b", "python")
    bench.finish()
    assert joined.phase == "gone"
    with pytest.raises(Forbidden):
        bench.fleet.pooled(joined)
    assert not set(bench.groups("a")) & set(bench.groups("b"))


def test_a_start_that_fails_in_a_full_group_holds_nobody_else_back(bench: Bench) -> None:
    bench.ask("a", "node")
    bench.finish()
    for _ in range(5):
        bench.ask("a", "python", 2.0)
        (joined,) = [one for one in bench.host.to_start if one.joins]
        bench.host.to_start.remove(joined)
        bench.desk.failed(joined, "no process could be made", 2.0)
    bench.ask("a", "python", 2.0)
    refused = [one.refusal.reason for one in bench.host.told if isinstance(one, Refused)]
    assert refused == ["no_room"] * 5 + ["held_back"]
    bench.ask("b", "python", 2.0)
    bench.finish(2.0)
    assert ("b", "python", "") in bench.fleet.routes


def test_a_pool_is_learned_from_demand_and_decays(bench: Bench) -> None:
    assert "python" not in bench.desk.runtimes(1.0)
    bench.ask("a", "python")
    bench.finish()
    assert bench.desk.runtimes(1.0)["python"].pool_target == 1
    for number in range(50):
        bench.ask(f"t{number}", "python", exclusive=True)
    assert bench.desk.runtimes(1.0)["python"].pool_target <= 4
    assert bench.desk.runtimes(400.0)["python"].pool_target == 0


def test_one_that_is_replaced_stays_in_the_group_of_the_others(bench: Bench) -> None:
    bench.ask("a", "node")
    bench.finish()
    bench.ask("a", "python")
    bench.finish()
    bench.desk.replace(bench.fleet.routes[RouteKey("a", "node", "")], "age", "age", 9.0)
    bench.finish(9.0)
    assert len(set(bench.groups("a"))) == 1
    assert len(bench.groups("a")) == 3


def test_a_runtime_that_is_not_known_is_refused(bench: Bench) -> None:
    bench.ask("a", "cobol")
    (refused,) = [one for one in bench.host.told if isinstance(one, Refused)]
    assert refused.refusal.reason == "unavailable"

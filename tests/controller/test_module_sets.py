"""A tenant's sandboxes of several sets of modules: one for each, within a bound, each given from the same pool."""

import pytest

from sandpost.controller.module_sets import SETS
from sandpost.model.limits import Tenant
from sandpost.model.messages import Ask, Assigned, Granted, Refused, RouteKey
from support.desk_bed import PROXY, Bench


def ask(bench: Bench, tenant: str, modules: str, now: float = 1.0, *, exclusive: bool = False) -> None:
    bench.seq += 1
    wanted = Ask(seq=bench.seq, tenant=Tenant(name=tenant), runtime="python", modules=modules, exclusive=exclusive)
    bench.desk.ask(PROXY, wanted, now)
    bench.desk.pump(now)
    bench.finish(now)


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.desk.pump(1.0)
    made.finish()
    return made


def sets(bench: Bench, tenant: str) -> list[str]:
    return sorted(key[2] for key in bench.fleet.routes if key[0] == tenant)


def refused(bench: Bench) -> list[str]:
    return [one.refusal.reason for one in bench.host.told if isinstance(one, Refused)]


def test_each_set_has_a_sandbox_and_all_are_in_one_group(bench: Bench) -> None:
    for modules in ("", "a==1", "a==2", "a==1"):
        ask(bench, "t", modules)
    assert sets(bench, "t") == ["", "a==1", "a==2"]
    assert len(bench.groups("t")) == 3
    assert len(set(bench.groups("t"))) == 1
    routes = [one.route.modules for one in bench.host.told if isinstance(one, Assigned)]
    assert routes == ["", "a==1", "a==2"]
    granted = [one.route.modules for one in bench.host.told if isinstance(one, Granted)]
    assert granted == ["", "a==1", "a==2", "a==1"]


def test_what_is_pooled_is_of_no_set_and_serves_any(bench: Bench) -> None:
    ask(bench, "t", "a==1")
    bench.desk.pump(1.0)
    bench.finish()
    ready = [one for pooled in bench.fleet.pool.values() for one in pooled.values() if one.record.runtime == "python"]
    assert [one.record.modules for one in ready] == [""]
    ask(bench, "u", "b")
    assert ready[0].key == ("u", "python", "b")


def test_beyond_the_bound_the_longest_idle_set_leaves(bench: Bench) -> None:
    for number in range(SETS):
        ask(bench, "t", f"m{number}", 1.0 + number)
    ask(bench, "t", "", 20.0)
    bench.fleet.routes[RouteKey("t", "python", "m0")].in_flight[PROXY] = 1
    ask(bench, "t", "more", 20.0)
    # m0 has a call.
    assert sets(bench, "t") == ["", "m0", "m2", "m3", "more"]
    assert refused(bench) == []


def test_where_all_sets_are_busy_a_further_one_is_refused(bench: Bench) -> None:
    for number in range(SETS):
        ask(bench, "t", f"m{number}", 19.0)
    # Not idle for long enough to be sure that no call has just begun.
    ask(bench, "t", "more", 20.0)
    assert refused(bench) == ["too_many_sets"]
    assert len(sets(bench, "t")) == SETS
    ask(bench, "u", "more", 20.0)
    assert sets(bench, "u") == ["more"]


def test_waits_count_towards_the_bound(bench: Bench) -> None:
    for number in range(SETS + 1):
        bench.seq += 1
        wanted = Ask(seq=bench.seq, tenant=Tenant(name="t"), runtime="python", modules=f"m{number}")
        bench.desk.ask(PROXY, wanted, 1.0)
    assert refused(bench) == ["too_many_sets"]


@pytest.mark.parametrize("modules", ["a b", "a\nb", "-a", "../x", "x" * 1537, "a\0", "\u043e"])
def test_a_text_that_is_no_set_is_refused(bench: Bench, modules: str) -> None:
    ask(bench, "t", modules)
    assert refused(bench) == ["unavailable"]
    assert sets(bench, "t") == []


def test_a_successor_is_of_the_same_set(bench: Bench) -> None:
    ask(bench, "t", "a==1")
    old = bench.fleet.routes[RouteKey("t", "python", "a==1")]
    bench.desk.replace(old, "age", "age", 9.0)
    bench.finish(9.0)
    new = bench.fleet.routes[RouteKey("t", "python", "a==1")]
    assert new is not old
    assert old.phase == "draining"


def test_calls_that_have_a_sandbox_each_are_not_bounded_by_sets(bench: Bench) -> None:
    for number in range(SETS + 2):
        ask(bench, "t", f"m{number}", exclusive=True)
    assert "too_many_sets" not in refused(bench)

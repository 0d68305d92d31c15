"""What changes while a sandbox starts, loads or leaves: it gets what its tenant may have when it is given to him."""

import asyncio
import subprocess
from typing import Any

import msgspec
import pytest

from sandpost.controller.lifecycle import Sandbox
from sandpost.controller.maker import Maker
from sandpost.controller.record import Record
from sandpost.controller.watch import MemoryWatch
from sandpost.model.errors import EngineError
from sandpost.model.limits import Limits, MiB, Tenant
from sandpost.model.messages import Refused, RouteKey, Table
from support.desk_bed import Bench
from support.installation import host_in, wait_for


@pytest.fixture
def bench() -> Bench:
    """Without a pool: every sandbox is started for whoever waits."""
    return Bench(pool=0)


def test_a_policy_that_changed_during_the_start_is_in_force(bench: Bench) -> None:
    bench.ask("a", "node")
    now = Tenant(name="a", egress="none", limits=msgspec.structs.replace(Limits(), memory=64 * MiB))
    assert bench.desk.tenant_changed(now, 1.0) == []
    bench.finish()
    sandbox = bench.fleet.routes[RouteKey("a", "node", "")]
    assert (sandbox.record.egress, sandbox.record.limits) == ("none", now.limits)
    assert bench.host.limits == [(sandbox.record.group_id, now.limits)]


def test_what_is_fixed_at_the_start_is_what_the_tenant_may_have_now(bench: Bench) -> None:
    bench.ask("a", "node")
    (begun,) = bench.host.to_start
    now = Tenant(name="a", limits=msgspec.structs.replace(Limits(), tmp=1 * MiB))
    bench.desk.tenant_changed(now, 1.0)
    bench.desk.pump(1.0)
    bench.finish()
    assert begun.record.tenant is None
    assert bench.fleet.routes[RouteKey("a", "node", "")].record.limits.tmp == 1 * MiB


def test_calls_that_are_to_have_a_sandbox_each_get_no_shared_one_that_is_on_its_way(bench: Bench) -> None:
    bench.ask("a", "node")
    bench.desk.tenant_changed(Tenant(name="a", isolation="per_request"), 1.0)
    (refused,) = [one.refusal for one in bench.host.told if isinstance(one, Refused)]
    assert (refused.reason, refused.retryable) == ("unavailable", True)
    bench.finish()
    assert bench.fleet.routes == {}


def test_a_start_in_vain_leaves_those_beside_it_their_own_limits(bench: Bench) -> None:
    bench.ask("a", "node")
    bench.finish()
    (first,) = bench.fleet.tenants["a"].values()
    bench.ask("a", "python")
    (joined,) = bench.host.to_start
    bench.desk.failed(joined, "no process could be made", 2.0)
    bench.host.limits.clear()
    bench.fleet.removed(joined)
    assert bench.host.limits == [(first.record.group_id, first.record.limits)]


def test_limits_below_what_is_in_use_end_no_sandbox_that_is_adopted(bench: Bench) -> None:
    record = Record(
        sandbox_id="s", group_id="g", slot=1, phase="assigned", image="i", limits=Limits(), started_at=1.0,
        tenant="a", assigned_at=1.0,
    )  # fmt: skip
    bench.host.limits_fail = True
    bench.fleet.adopt(record, 2.0)
    assert bench.fleet.routes[RouteKey("a", "node", "")].phase == "assigned"


def test_a_limit_below_what_is_in_use_ends_the_largest_and_all_else_is_in_force(bench: Bench) -> None:
    for runtime in ("node", "python"):
        bench.ask("a", runtime)
        bench.finish()
    sizes = {"node": 60 * MiB, "python": 90 * MiB}
    for key, sandbox in bench.fleet.routes.items():
        sandbox.memory = sizes[key.runtime]
    large = bench.fleet.routes[RouteKey("a", "python", "")]
    bench.host.in_use = 150 * MiB
    bench.host.ways.clear()
    limits = msgspec.structs.replace(Limits(), memory=80 * MiB, bandwidth_out=1, connections=3)
    assert bench.desk.tenant_changed(Tenant(name="a", egress="none", limits=limits), 9.0) == []
    assert [how[1:] for how in bench.host.ways] == [("none", limits)] * 2
    assert (large.phase, large.record.word) == ("gone", "memory")
    assert large.record.message == "memory: 80 MiB reached, to which it was lowered"
    assert {key.runtime for key in bench.fleet.routes} == {"node"}
    assert all(one.record.limits == limits for one in bench.fleet.tenants["a"].values())
    assert bench.desk.ends == {"memory": 1}
    # What could not be set before is set when it has gone.
    bench.host.in_use = 80 * MiB
    bench.host.limits.clear()
    bench.fleet.removed(large)
    assert bench.host.limits == [(large.record.group_id, limits)]


def test_as_many_end_as_keep_a_lowered_limit_exceeded(bench: Bench) -> None:
    for runtime in ("node", "python"):
        bench.ask("a", runtime)
        bench.finish()
    for sandbox in bench.fleet.routes.values():
        sandbox.memory = 70 * MiB
    bench.host.in_use = 140 * MiB
    bench.desk.tenant_changed(Tenant(name="a", limits=msgspec.structs.replace(Limits(), memory=64 * MiB)), 9.0)
    assert bench.fleet.routes == {}
    assert bench.desk.ends == {"memory": 2}


def test_a_successor_waits_until_it_fits_beside_the_others_of_its_group(bench: Bench) -> None:
    for runtime in ("node", "python"):
        bench.ask("a", runtime)
        bench.finish()
    old = bench.fleet.routes[RouteKey("a", "node", "")]
    old.memory = old.record.limits.memory - 4 * MiB
    bench.desk.replace(old, "age", "age", 9.0)
    assert bench.host.to_start == []
    old.memory = 20 * MiB
    bench.desk.replace(old, "age", "age", 9.0)
    assert len(bench.host.to_start) == 1


def test_who_comes_anew_is_told_at_once_which_routes_take_no_calls(bench: Bench) -> None:
    for tenant in ("a", "b"):
        bench.ask(tenant, "node")
        bench.finish()
    bench.fleet.leave(bench.fleet.routes[RouteKey("a", "node", "")], "age", "age", 9.0)
    (table,) = [one for one in bench.fleet.table() if isinstance(one, Table)]
    assert {route.tenant: route.leaving for route in table.routes} == {"a": True, "b": False}


def test_a_status_that_was_told_of_an_earlier_process_of_the_same_number_is_not_a_sandboxes() -> None:
    ends: list[str] = []

    class Engine:
        def watch_memory(self, *_: Any) -> Any:
            return lambda: None

        def read(self, *_: Any) -> None: ...

    async def work() -> None:
        parts: Any = Engine()
        maker = Maker(host_in("/nonexistent"), parts, parts, parts)
        maker.ended = lambda _sandbox, _word, message: ends.append(message)
        process = await asyncio.to_thread(subprocess.Popen, ["/bin/sleep", "60"])
        try:
            record = Record(
                sandbox_id="s", group_id="g", slot=1, phase="assigned", image="i", limits=Limits(), started_at=1.0,
                pid=process.pid,
            )  # fmt: skip
            maker.exited(process.pid, 9)
            sandbox = Sandbox(record)
            sandbox.pid = process.pid
            maker.adopt(sandbox)
            process.terminate()
            await asyncio.to_thread(wait_for, lambda: bool(ends))
        finally:
            process.kill()
            process.wait()
            await maker.close()

    asyncio.run(work())
    assert ends == ["crash: killed by signal 15 (SIGTERM)"]


def test_a_look_at_memory_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> None:
    monkeypatch.setattr("sandpost.controller.watch._LOOK_AGAIN", 0.01)
    looks: list[int] = []

    class Engine:
        def limit_parent(self, _memory: int) -> None: ...

        def watch_parent(self, *_: Any) -> Any:
            raise EngineError("no event")

        def memory(self) -> tuple[int, int]:
            looks.append(1)
            if len(looks) in {2, 3}:
                raise OSError(24, "Too many open files")
            return 1, 1 << 40

    async def work() -> None:
        engine: Any = Engine()
        watch = MemoryWatch(bench.desk, engine, engine, 0.1, lambda: None)
        watch.open()
        await asyncio.sleep(0.2)
        watch.close()

    asyncio.run(work())
    assert len(looks) > 3

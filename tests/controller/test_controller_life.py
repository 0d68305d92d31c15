"""A really started controller, with real sandboxes: who gets one, and with which limits."""

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec

from sandpost.model.limits import Limits, MiB, Tenant
from sandpost.model.messages import (
    Activity,
    Finished,
    Granted,
    Refused,
    Report,
    TenantChanged,
    TenantRemoved,
)
from support.controller_bed import Installation, client, drive, run_in

HELLO = 'return function (cb) { cb(null, "hello") }'
FILL = "return function (cb) { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)) }"

HOLD = "globalThis.all = []; return (cb) => { for (let n = 0; n < %d; n++) all.push(Buffer.alloc(1 << 20, 1)); cb(null, 1) }"


def test_a_tenant_gets_a_pooled_sandbox_that_answers_and_a_record_says_so(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy:
            pooled = {key for key, record in inst.records().items() if record.phase == "pooled"}
            route = await proxy.route("first")
            assert route.sandbox_id in pooled
            assert inst.records()[route.sandbox_id].tenant == "first"
            assert await run_in(route, HELLO) == (200, b'"hello"')
            assert await proxy.route("first") == route

    drive(work())


def test_a_herd_of_asks_of_one_tenant_gets_one_sandbox(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as one, client(inst.host, index=1) as other:
            asked = [(proxy, proxy.ask("herd")) for _ in range(20) for proxy in (one, other)]
            answers = [await proxy.answer(seq) for proxy, seq in asked]
            assert len({answer.route.sandbox_id for answer in answers if isinstance(answer, Granted)}) == 1
            assert all(isinstance(answer, Granted) for answer in answers)
            assert [record.tenant for record in inst.records().values()].count("herd") == 1

    drive(work())


def test_more_tenants_than_pool_and_queue_are_refused_with_a_time_to_come_back(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            answers = [await proxy.answer(seq) for seq in [proxy.ask(f"many-{n}") for n in range(30)]]
            granted = [answer.route for answer in answers if isinstance(answer, Granted)]
            refused = [answer.refusal for answer in answers if isinstance(answer, Refused)]
            assert len(granted) == 10, "two of the pool, eight of the queue"
            assert len({route.sandbox_id for route in granted}) == 10
            assert {(one.reason, one.status) for one in refused} == {("no_room", 503)}
            assert all(one.retry_after and 1 <= one.retry_after <= 60 for one in refused)
            for route in granted:
                api.send(TenantRemoved(seq=1, name=route.tenant))
            for route in granted:
                assert (await proxy.end_of(route)).word == "drained"

    drive(work())


def test_changed_limits_are_in_force_at_once(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            route = await proxy.route("changing")
            limits = msgspec.structs.replace(inst.host.defaults, memory=64 * MiB)
            api.send(TenantChanged(seq=1, tenant=Tenant(name="changing", limits=limits)))
            await api.until(lambda: 1 in api.done, "the answer to the change")
            assert inst.records()[route.sandbox_id].limits.memory == 64 * MiB
            await run_in(route, FILL)
            assert (await proxy.end_of(route)).message == "memory: 64 MiB reached"

    drive(work())


def test_memory_lowered_below_what_is_in_use_ends_the_sandbox_by_that_word(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            route = await proxy.route(Tenant(name="lowered", limits=Limits(memory=256 * MiB)))
            assert (await run_in(route, HOLD % 120))[0] == 200
            api.send(TenantChanged(seq=1, tenant=Tenant(name="lowered", limits=Limits(memory=64 * MiB))))
            await api.until(lambda: 1 in api.done, "the answer to the change")
            # Cgroup v2's kernel ends it; v1's refuses the limit.
            assert (await proxy.end_of(route)).message.startswith("memory: 64 MiB reached")
            assert (await proxy.route(Tenant(name="lowered", limits=Limits(memory=64 * MiB)))) != route

    drive(work())


def test_per_request_sandboxes_serve_one_call_within_one_budget(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy:
            tenant = Tenant(name="alone", isolation="per_request", limits=Limits(per_request_at_once=2))
            first = await proxy.route(tenant, exclusive=True)
            # Half of a pool of two is one: the second call waits for the first to be over.
            second = proxy.ask(tenant, exclusive=True)
            await asyncio.sleep(1)
            assert second not in proxy.answers
            assert inst.records()[first.sandbox_id].limits.memory == tenant.limits.memory // 2
            proxy.send(Finished(sandbox_id=first.sandbox_id))
            assert (await proxy.end_of(first)).word == "done"
            answer = await proxy.answer(second)
            assert isinstance(answer, Granted)
            assert answer.route.exclusive
            assert answer.route.sandbox_id != first.sandbox_id

    drive(work())


def test_a_tenant_with_another_tmp_gets_a_sandbox_started_for_it(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy:
            pooled = {key for key, record in inst.records().items() if record.phase == "pooled"}
            route = await proxy.route(Tenant(name="small-tmp", limits=Limits(tmp=1 * MiB)))
            assert route.sandbox_id not in pooled
            wants = "return (cb) => cb(null, require('fs').statfsSync('/tmp').blocks * 4096)"
            assert await run_in(route, wants) == (200, str(1 * MiB).encode())

    drive(work())


def test_usage_counts_calls_processor_memory_and_ends(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            route = await proxy.route("using")
            busy = "const {user} = process.cpuUsage(); while (process.cpuUsage().user - user < 4e5) ; cb(null, 1)"
            await run_in(route, f"return (cb) => {{ {busy} }}")
            proxy.send(Report(activities=[Activity(sandbox_id=route.sandbox_id, calls=2, bytes_in=10, bytes_out=20)]))
            await asyncio.sleep(0.5)
            os.kill(inst.records()[route.sandbox_id].pid, signal.SIGKILL)
            await proxy.end_of(route)
            # What a proxy saw of it arrives after its end, and counts.
            proxy.send(Report(activities=[Activity(sandbox_id=route.sandbox_id, calls=1, bytes_in=1, bytes_out=2)]))
            used = await api.until(lambda: _complete(api.usage.get("using"), 3), "its usage", 15)
            assert (used.bytes_in, used.bytes_out, used.ends) == (11, 22, {"crash": 1})
            assert 0.2 < used.cpu_seconds < 5
            assert 0.5 * 10 * MiB < used.memory_seconds < 60 * 128 * MiB

    drive(work())


def test_what_a_removed_tenant_used_is_not_told_afterwards(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            removed, other = await proxy.route("removed"), await proxy.route("other")
            for route in (removed, other):
                await run_in(route, "return (cb) => cb(null, 1)")
            # What was used until now is told, or lost with its tenant.
            await asyncio.sleep(3)
            api.usage.clear()
            for route in (removed, other):
                proxy.send(Report(activities=[Activity(sandbox_id=route.sandbox_id, calls=2)]))
            api.send(TenantRemoved(seq=1, name="removed"))
            await proxy.end_of(removed)
            for route in (removed, other):
                proxy.send(Report(activities=[Activity(sandbox_id=route.sandbox_id, calls=1)]))
            os.kill(inst.records()[other.sandbox_id].pid, signal.SIGKILL)
            await api.until(lambda: _complete(api.usage.get("other"), 3), "usage of the other", 15)
            assert "removed" not in api.usage

    drive(work())


def test_what_is_shown_of_sandboxes_and_host_is_true(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            route = await proxy.route("shown")
            proxy.send(Report(activities=[Activity(sandbox_id=route.sandbox_id, in_flight=2, calls=3)]))
            async with asyncio.timeout(5):
                # What the proxy says may be heard after what the api asks.
                while (info := (await api.infos("shown"))[0]).calls != 3:
                    pass
            assert (info.sandbox_id, info.phase, info.calls, info.in_flight) == (route.sandbox_id, "assigned", 3, 2)
            assert abs((info.assigned_at or 0) - time.time()) < 20
            assert info.memory > 1 * MiB
            assert info.cpu_seconds > 0.01
            assert info.pids >= 2
            status = await api.ask_status()
            everything = await api.infos()
            assert status.assigned == len([one for one in everything if one.phase == "assigned"])
            assert status.proxies == 1
            assert status.memory_used > 2 * MiB
            figures = Path(inst.host.metrics_dir, "controller-0.json")
            await inst.becomes(figures.exists, "its figures")
            assert "sandpost_sandbox_start_seconds" in figures.read_text()
            assert "shown" not in figures.read_text()

    drive(work())


def _complete(used: Any, calls: int) -> Any:
    return used if used is not None and used.calls >= calls and used.ends else None

"""Memory of all sandboxes together, under a small bound: who ends, and who is never touched."""

import asyncio
import os
import time
from typing import Any

import pytest

from sandpost.controller.room import MiB
from sandpost.model.limits import Limits, Tenant
from sandpost.model.messages import Activity, Granted, Refused, Report, Route
from support.controller_bed import Client, Installation, client, drive, run_in

BOUND = 960 * MiB
GROW = "const all = []; return (cb) => { for (let n = 0; n < %d; n++) all.push(Buffer.alloc(1 << 20, 1)); cb(null, 1) }"


def small(**changes: Any) -> Installation:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Installation(memory_reserve=1 - BOUND / total, **changes)


@pytest.mark.long
def test_tenants_that_fill_their_limit_are_evicted_and_a_small_neighbour_loses_no_call() -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            neighbour = await proxy.route("neighbour")
            assert (await run_in(neighbour, GROW % 8))[0] == 200
            ends = time.monotonic() + 15
            calls: list[int] = []

            async def keep_calling() -> None:
                while time.monotonic() < ends:
                    calls.append((await run_in(neighbour, "return (cb) => cb(null, 1)"))[0])
                    report(proxy, neighbour)
                    await asyncio.sleep(0.02)

            async def fill(number: int) -> None:
                while time.monotonic() < ends:
                    tenant = Tenant(name=f"filler-{number}", limits=Limits(memory=1 << 30))
                    answer = await proxy.answer(proxy.ask(tenant))
                    if isinstance(answer, Granted):
                        report(proxy, answer.route)
                        await run_in(answer.route, GROW % 100)
                        report(proxy, answer.route)
                    await asyncio.sleep(0.3)

            await asyncio.gather(keep_calling(), *(fill(number) for number in range(16)))
            assert set(calls) == {200}
            assert len(calls) > 100
            assert neighbour.sandbox_id not in proxy.gone
            words = [gone.word for gone in proxy.gone.values()]
            # The kernel may be faster than the watch once in a while; that is never laid at the tenant's door.
            assert set(words) <= {"evicted", "platform"}
            assert words.count("platform") <= len(words) / 10, words
            status = await api.ask_status()
            assert status.memory_limit <= BOUND
            assert status.memory_used < BOUND

    with small(pool_size=1, queue=100) as inst:
        drive(work(inst), 100)


def test_idle_sandboxes_leave_for_a_tenant_that_waits_and_with_none_it_is_refused() -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy:
            routes = []
            for number in range(3):
                route = await proxy.route(Tenant(name=f"holder-{number}", limits=Limits(memory=400 * MiB)))
                await run_in(route, GROW % 190)
                proxy.send(Report(activities=[Activity(sandbox_id=route.sandbox_id, in_flight=1)]))
                routes.append(route)
            refused = await proxy.answer(proxy.ask("newcomer"))
            assert isinstance(refused, Refused), refused
            assert (refused.refusal.reason, refused.refusal.status) == ("no_room", 503)
            for route in routes:
                report(proxy, route)
            await asyncio.sleep(6.5)
            answer = await proxy.answer(proxy.ask("newcomer"))
            assert isinstance(answer, Granted)
            evicted = [gone.tenant for gone in proxy.gone.values() if gone.word == "evicted"]
            assert evicted
            # Each reads in his own log what became of his sandbox.
            for tenant in evicted:
                (told,) = [record for record in inst.heard.of(tenant) if record["msg"] == "webtask container recycled"]
                assert (told["end"], told["container"]) == ("evicted", tenant)

    with small(pool_size=0) as inst:
        drive(work(inst))


def report(proxy: Client, route: Route) -> None:
    proxy.send(Report(activities=[Activity(sandbox_id=route.sandbox_id, calls=1)]))

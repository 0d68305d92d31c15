"""A really started controller, with real sandboxes: how each ends, and what follows."""

import asyncio
import os
import signal
import time

import pytest

from sandpost.controller.aging import GRACE
from sandpost.controller.holdback import ENDS
from sandpost.model.limits import Limits, Tenant
from sandpost.model.messages import (
    Activity,
    Granted,
    Named,
    Replace,
    Report,
    Route,
    Suspect,
    TenantChanged,
)
from support.controller_bed import Client, Installation, client, drive, run_in

HELLO = 'return function (cb) { cb(null, "hello") }'
FILL = "return function (cb) { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)) }"


@pytest.mark.parametrize(
    ("program", "word", "message"),
    [
        ("return function (cb) { process.reallyExit(3) }", "exit", "exit: process ended with status 3"),
        (
            "return function (cb) { process.kill(process.pid, 'SIGKILL') }",
            "crash",
            "crash: killed by signal 9 (SIGKILL)",
        ),
        (FILL, "memory", "memory: 128 MiB reached, 2 calls in flight"),
    ],
)
def test_an_end_from_inside_is_told_with_its_word(inst: Installation, program: str, word: str, message: str) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy:
            route = await proxy.route(f"ends-{word}")
            if word == "memory":
                proxy.send(Report(activities=[Activity(sandbox_id=route.sandbox_id, in_flight=2, calls=2)]))
            await run_in(route, program)
            gone = await proxy.end_of(route)
            assert (gone.word, gone.message, gone.tenant) == (word, message, f"ends-{word}")
            assert (gone.setting, gone.limit) == (("limits.memory", 128 << 20) if word == "memory" else ("", 0))
            # One fatal end holds nobody back, and the next sandbox is another.
            again = await proxy.route(f"ends-{word}")
            assert again.sandbox_id != route.sandbox_id
            assert again.host != route.host

    drive(work())


def test_every_proxy_hears_that_the_guilty_call_was_named(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as one, client(inst.host, index=1) as other:
            route = await one.route("named")
            # It may come some milliseconds after the end.
            os.kill(inst.records()[route.sandbox_id].pid, signal.SIGKILL)
            one.send(Named(sandbox_id=route.sandbox_id))
            assert (await other.end_of(route)).named
            assert (await one.end_of(route)).named
            route = await one.route("named")
            os.kill(inst.records()[route.sandbox_id].pid, signal.SIGKILL)
            assert not (await other.end_of(route)).named

    drive(work())


def test_five_fatal_ends_hold_a_tenant_back_for_a_second(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy:
            for _ in range(ENDS):
                route = await proxy.route("crashing")
                os.kill(inst.records()[route.sandbox_id].pid, signal.SIGSEGV)
                os.kill(inst.records()[route.sandbox_id].pid, signal.SIGKILL)
                await proxy.end_of(route)
            refusal = (await proxy.refusal("crashing")).refusal
            assert (refusal.reason, refusal.status, refusal.fault) == ("held_back", 429, "code")
            assert refusal.retry_after in {1, 2}
            assert isinstance(await proxy.answer(proxy.ask("innocent")), Granted)
            await asyncio.sleep(1.1)
            assert isinstance(await proxy.answer(proxy.ask("crashing")), Granted)

    drive(work())


def test_a_suspended_tenants_sandbox_ends_within_a_second_and_it_gets_no_other(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            route = await proxy.route("suspect")
            begun = time.monotonic()
            api.send(TenantChanged(seq=7, tenant=Tenant(name="suspect", state="suspended")))
            assert (await proxy.end_of(route)).word == "drained"
            # One that leaves has longer.
            assert time.monotonic() - begun < GRACE
            await api.until(lambda: 7 in api.done, "the answer to the change")
            # A proxy that has not read the store yet still says `active`.
            assert (await proxy.refusal("suspect")).refusal.reason == "suspended"
            api.send(TenantChanged(seq=8, tenant=Tenant(name="suspect")))
            await api.until(lambda: 8 in api.done, "the answer to the change")
            assert isinstance(await proxy.answer(proxy.ask("suspect")), Granted)

    drive(work())


def test_an_idle_sandbox_leaves_and_then_ends(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy:
            tenant = Tenant(name="idle", limits=Limits(idle=1.0))
            route = await proxy.route(tenant)
            await proxy.until(lambda: route.sandbox_id in proxy.left, "it to leave")
            assert route.sandbox_id not in proxy.gone
            gone = await proxy.end_of(route)
            assert (gone.word, gone.message) == ("idle", "idle: no call for 1 s")

    drive(work())


def test_a_sandbox_that_served_its_count_is_replaced_with_the_new_one_ready_first(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy:
            old = await proxy.route(Tenant(name="counted", limits=Limits(count=3)))
            proxy.send(Report(activities=[Activity(sandbox_id=old.sandbox_id, in_flight=1, calls=3)]))
            new = await proxy.until(lambda: _route_beside(proxy, old), "the new one")
            await proxy.until(lambda: old.sandbox_id in proxy.left, "the old one to leave")
            assert await proxy.route("counted") == new
            await asyncio.sleep(3)
            assert old.sandbox_id not in proxy.gone, "ended while a call was in flight"
            proxy.send(Report(activities=[Activity(sandbox_id=old.sandbox_id)]))
            gone = await proxy.end_of(old)
            assert (gone.word, gone.message) == ("count", "count: 3 calls reached")

    drive(work())


def test_a_runtimes_wish_to_be_replaced_is_heeded_but_not_at_will(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy:
            old = await proxy.route("leaking")
            proxy.send(Replace(sandbox_id=old.sandbox_id))
            await asyncio.sleep(0.5)
            assert _route_beside(proxy, old) is None, "replaced at once"
            await asyncio.sleep(3)
            proxy.send(Replace(sandbox_id=old.sandbox_id))
            new = await proxy.until(lambda: _route_beside(proxy, old), "the new one")
            assert (await proxy.end_of(old)).word == "drained"
            assert await proxy.route("leaking") == new

    drive(work())


def test_a_loop_is_ended_as_blocked_only_if_it_uses_the_processor(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy:
            sleeping, busy = await proxy.route("sleeping"), await proxy.route("busy")
            sleeps = (
                "return (cb) => { Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2500); cb(null, 1) }"
            )
            calls = [
                asyncio.create_task(run_in(sleeping, sleeps)),
                asyncio.create_task(run_in(busy, "return (cb) => { for (;;) ; }")),
            ]
            await asyncio.sleep(1)
            for route in (sleeping, busy):
                proxy.send(Suspect(sandbox_id=route.sandbox_id, kind="loop", silent_for=3.0))
            gone = await proxy.end_of(busy)
            assert (gone.word, gone.message) == ("blocked", "blocked: no answer for 3.0 s while its CPU time grew")
            assert (await calls[0])[0] == 200
            assert sleeping.sandbox_id not in proxy.gone
            proxy.send(Suspect(sandbox_id=sleeping.sandbox_id, kind="deadline", silent_for=1.0))
            assert (await proxy.end_of(sleeping)).word == "blocked"
            await calls[1]

    drive(work())


def test_cpu_time_beyond_what_calls_may_use_ends_their_sandbox_and_no_other(inst: Installation) -> None:
    burn = "return (cb) => { const on = () => { const t = Date.now() + 20; while (Date.now() < t); setImmediate(on) }; on() }"

    async def work() -> None:
        async with client(inst.host) as proxy:
            limited = await proxy.route(Tenant(name="limited", limits=Limits(cpu_seconds=0.3)))
            free = await proxy.route("free")
            calls = [asyncio.create_task(run_in(route, burn)) for route in (limited, free)]
            await asyncio.sleep(1.5)
            # As much as ten calls may use.
            proxy.send(Suspect(sandbox_id=limited.sandbox_id, kind="cpu", silent_for=1.5, calls=10))
            proxy.send(Suspect(sandbox_id=free.sandbox_id, kind="cpu", silent_for=1.5))
            await asyncio.sleep(0.3)
            assert not proxy.gone
            # How long it takes to use them is the machine's affair.
            began = time.monotonic()
            while limited.sandbox_id not in proxy.gone:
                assert time.monotonic() - began < 20
                await asyncio.sleep(0.2)
                age = 1.8 + time.monotonic() - began
                proxy.send(Suspect(sandbox_id=limited.sandbox_id, kind="cpu", silent_for=age))
            gone = proxy.gone[limited.sandbox_id]
            assert (gone.word, gone.setting, gone.limit) == ("cpu", "limits.cpu_seconds", 0.3)
            assert gone.message.startswith("cpu: 0.3 CPU seconds a call reached, ")
            assert free.sandbox_id not in proxy.gone
            proxy.send(Suspect(sandbox_id=free.sandbox_id, kind="deadline", silent_for=1.0))
            await asyncio.gather(*calls)

    drive(work())


def _route_beside(proxy: Client, old: Route) -> Route | None:
    routes = [route for route in proxy.routes.values() if route.tenant == old.tenant]
    return next((route for route in routes if route.sandbox_id != old.sandbox_id), None)

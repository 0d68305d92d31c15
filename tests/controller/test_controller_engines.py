"""A really started controller with tenants on runc and on runsc: whose sandbox is made by what, and how those of runsc end."""

import asyncio
import os
import signal
from collections.abc import Iterator

import msgspec
import pytest

from sandpost.controller.record import Record
from sandpost.model.limits import EngineName, Limits, MiB, Tenant
from sandpost.model.messages import Activity, Engines, Report, Route, Suspect, TenantChanged
from support import gvisor
from support.controller_bed import Installation, client, drive, run_in

HELLO = 'return function (cb) { cb(null, "hello") }'
KERNEL = "return function (cb) { cb(null, require('os').release()) }"
COUNT = "let n = 0; return (cb) => cb(null, ++n)"
FILL = "return function (cb) { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)) }"
GVISOR = b"gvisor"


@pytest.fixture(scope="module")
def inst() -> Iterator[Installation]:
    """A controller of an installation on runc that has runsc besides."""
    gvisor.runsc()
    with Installation(pool_size=1) as started:
        yield started


def strong(name: str, **limits: int) -> Tenant:
    return Tenant(name=name, engine="runsc", limits=Limits(**limits))


def pooled(inst: Installation, engine: EngineName) -> list[Record]:
    return [one for one in inst.records().values() if one.phase == "pooled" and one.engine == engine]


def record(inst: Installation, route: Route) -> Record:
    return inst.records()[route.sandbox_id]


def limit(inst: Installation, route: Route) -> int:
    """Memory of its tenant's group, bytes."""
    group = f"{inst.host.cgroup_parent}/t-{record(inst, route).group_id}"
    one, two = f"/sys/fs/cgroup/memory/{group}/memory.limit_in_bytes", f"/sys/fs/cgroup/{group}/memory.max"
    with open(two if inst.host.cgroups == 2 else one, encoding="ascii") as file:
        return int(file.read())


def test_each_tenant_gets_what_it_is_set_to_and_records_and_lists_say_it(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            weak, stronger = await asyncio.gather(proxy.route("weak"), proxy.route(strong("stronger")))
            assert (record(inst, weak).engine, record(inst, stronger).engine) == ("runc", "runsc")
            assert GVISOR not in (await run_in(weak, KERNEL))[1]
            assert GVISOR in (await run_in(stronger, KERNEL))[1]
            assert {one.tenant: one.engine for one in await api.infos() if one.tenant in {"weak", "stronger"}} == {
                "weak": "runc",
                "stronger": "runsc",
            }

    drive(work())


def test_an_engine_that_a_tenant_is_set_to_has_a_pool_of_its_own_until_none_is(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            api.send(Engines(engines=["runsc"]))
            await inst.becomes(lambda: pooled(inst, "runsc") and pooled(inst, "runc"), "both pools")
            ready = {one.sandbox_id for one in pooled(inst, "runsc")}
            route = await proxy.route(strong("from-the-pool"))
            assert route.sandbox_id in ready
            assert (await run_in(route, HELLO))[0] == 200
            api.send(Engines(engines=[]))
            await inst.becomes(lambda: not pooled(inst, "runsc"), "the pool to end")
            assert record(inst, route).phase == "assigned"

    drive(work())


def test_a_per_request_tenant_of_runsc_is_served_from_a_pool_with_his_share_of_processes(inst: Installation) -> None:
    program = """return async function (cb) { const {spawn} = require('child_process'); let code = null;
        for (let i = 0; i < 90 && !code; i++) {
          const child = spawn('sleep', ['30'], {stdio: 'ignore'});
          if (!child.pid) code = await new Promise((f) => child.once('error', (e) => f([e.code, i])));
        }
        cb(null, code) }"""
    share = Limits().pids // Limits().per_request_at_once

    def shares() -> set[str]:
        return {one.sandbox_id for one in pooled(inst, "runsc") if one.limits.pids == share}

    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            api.send(Engines(engines=["runsc"], alone=["runsc"]))
            await inst.becomes(shares, "the pool of shares")
            ready = shares()
            route = await proxy.route(Tenant(name="alone", engine="runsc", isolation="per_request"), exclusive=True)
            assert route.sandbox_id in ready
            code, made = msgspec.json.decode((await run_in(route, program))[1])
            assert code == "EAGAIN"
            assert 5 < made < share
            api.send(Engines(engines=[]))
            await inst.becomes(lambda: not pooled(inst, "runsc"), "the pools to end")

    drive(work())


def test_a_tenant_with_its_own_limit_of_processes_gets_a_start_of_its_own_and_that_limit(inst: Installation) -> None:
    program = """return async function (cb) { const {spawn} = require('child_process'); let code = null;
        for (let i = 0; i < 60 && !code; i++) {
          const child = spawn('sleep', ['30'], {stdio: 'ignore'});
          if (!child.pid) code = await new Promise((f) => child.once('error', (e) => f([e.code, i])));
        }
        cb(null, code) }"""

    async def work() -> None:
        async with client(inst.host) as proxy:
            route = await proxy.route(strong("few", pids=24))
            code, made = msgspec.json.decode((await run_in(route, program))[1])
            assert code == "EAGAIN"
            assert 5 < made < 24

    drive(work())


def test_a_tenant_that_moves_is_served_by_its_new_engine_at_once(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            before = await proxy.route("mover")
            api.send(TenantChanged(seq=5, tenant=strong("mover")))
            await api.until(lambda: 5 in api.done, "the answer to the change")
            assert before.sandbox_id in proxy.left
            assert (await proxy.end_of(before)).word == "drained"
            # A proxy that has not read the store yet asks as before.
            after = await proxy.route("mover")
            assert record(inst, after).engine == "runsc"

    drive(work())


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
def test_an_end_on_runsc_is_told_with_its_word(inst: Installation, program: str, word: str, message: str) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy:
            route = await proxy.route(strong(f"strong-{word}"))
            if word == "memory":
                proxy.send(Report(activities=[Activity(sandbox_id=route.sandbox_id, in_flight=2, calls=2)]))
            # A sentry that was killed says nothing to who waits.
            await run_in(route, program, patience=3)
            gone = await proxy.end_of(route)
            assert (gone.word, gone.message) == (word, message)
            again = await proxy.route(strong(f"strong-{word}"))
            assert (await run_in(again, HELLO))[0] == 200

    drive(work())


def test_a_program_can_use_as_much_memory_as_on_runc(inst: Installation) -> None:
    program = "return function (cb) { const all = []; for (let i = 0; i < %d; i++) all.push(Buffer.alloc(1 << 20, 1));"
    program += " cb(null, all.length) }"

    async def work() -> None:
        async with client(inst.host) as proxy:
            for tenant in (Tenant(name="much"), strong("as-much")):
                route = await proxy.route(tenant)
                assert await run_in(route, program % 105) == (200, b"105")
            assert limit(inst, route) == 152 * MiB

    drive(work())


def test_on_runsc_a_second_runtime_gets_what_its_sentry_needs_and_takes_it_along(inst: Installation) -> None:
    fill = "return function (cb) { const all = []; for (let i = 0; i < 40; i++) all.push(Buffer.alloc(1 << 20, 1)); cb(null, 1) }"
    fill_in_python = "def main(context):\n    return len(b'x' * (30 << 20))"

    async def work() -> None:
        async with client(inst.host) as proxy:
            tenant = strong("two-sentries")
            node = await proxy.route(tenant)
            assert limit(inst, node) == 152 * MiB
            python = await proxy.route(tenant, runtime="python")
            assert record(inst, node).group_id == record(inst, python).group_id
            assert limit(inst, node) == 176 * MiB
            # What one program can use, both can use together.
            assert await run_in(node, fill) == (200, b"1")
            assert (await run_in(python, fill_in_python))[0] == 200
            await run_in(python, "import os\ndef main(context):\n    os.abort()")
            assert (await proxy.end_of(python)).word == "crash"
            await inst.becomes(lambda: limit(inst, node) == 152 * MiB, "the limit to be of one sandbox again")
            assert await run_in(node, HELLO) == (200, b'"hello"')

    drive(work())


def test_a_busy_loop_on_runsc_is_blocked_and_silence_alone_is_not(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy:
            busy, quiet = await asyncio.gather(proxy.route(strong("busy")), proxy.route(strong("quiet")))
            assert (await run_in(quiet, HELLO))[0] == 200
            call = asyncio.create_task(run_in(busy, "return function (cb) { for (;;); }", patience=8))
            await asyncio.sleep(1)
            for route in (busy, quiet):
                proxy.send(Suspect(sandbox_id=route.sandbox_id, kind="loop", silent_for=15.0))
            assert (await proxy.end_of(busy)).word == "blocked"
            assert quiet.sandbox_id not in proxy.gone
            assert (await run_in(quiet, HELLO))[0] == 200
            await call

    drive(work())


def test_a_killed_controller_costs_no_sandbox_of_runsc_and_the_next_one_adopts() -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy:
            async with client(inst.host, "api") as api:
                api.send(Engines(engines=["runsc"]))
                await inst.becomes(lambda: pooled(inst, "runsc"), "the pool")
                route = await proxy.route(strong("lasting"))
                assert await run_in(route, COUNT) == (200, b"1")
                await inst.becomes(lambda: pooled(inst, "runsc"), "the pool")
            ready = {one.sandbox_id for one in pooled(inst, "runsc")}
            inst.kill()
            assert await run_in(route, COUNT) == (200, b"2"), "the data path needs no controller"
            inst.start()
            await asyncio.wait_for(proxy.table_known.wait(), 5)
            assert await run_in(route, COUNT) == (200, b"3")
            # Nobody has told it yet that a tenant is on runsc.
            await asyncio.sleep(1.5)
            assert {one.sandbox_id for one in pooled(inst, "runsc")} >= ready
            assert (await proxy.route(strong("next"))).sandbox_id in ready
            os.kill(record(inst, route).pid, signal.SIGKILL)
            assert (await proxy.end_of(route)).word == "crash"

    with Installation(pool_size=1) as inst:
        drive(work(inst))


def test_without_runsc_its_tenants_are_refused_and_never_put_on_runc() -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy:
            refusal = (await proxy.refusal(strong("walled"))).refusal
            assert refusal.reason == "unavailable"
            assert "scripts/install --gvisor" in refusal.message
            assert (await run_in(await proxy.route("weak"), HELLO))[0] == 200
            assert "walled" not in {one.tenant for one in inst.records().values()}
            # Installed meanwhile, and told by SIGHUP.
            inst.write_host(runsc_command=gvisor.runsc())
            assert inst.process is not None
            inst.process.send_signal(signal.SIGHUP)
            await inst.becomes(lambda: "settings taken up" in inst.output(), "the new settings")
            assert record(inst, await proxy.route(strong("walled"))).engine == "runsc"

    with Installation(pool_size=1, runsc_command="") as inst:
        drive(work(inst))

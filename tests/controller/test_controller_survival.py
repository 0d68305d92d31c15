"""A controller that is killed, renewed, or finds what another left; and addresses that proxies have not let go of."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from ipaddress import IPv4Network
from pathlib import Path

import msgspec
import pytest

from sandpost.model.limits import MiB
from sandpost.model.messages import (
    Activity,
    Report,
)
from support.controller_bed import Installation, client, drive, run_in

COUNT = "let n = 0; return (cb) => cb(null, ++n)"


def test_a_killed_controller_costs_no_sandbox_and_the_next_one_adopts() -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy:
            route = await proxy.route("lasting")
            assert await run_in(route, COUNT) == (200, b"1")
            await inst.becomes(lambda: inst.phases().count("pooled") == 2, "the pool")
            pooled = {key for key, record in inst.records().items() if record.phase == "pooled"}
            inst.kill()
            assert await run_in(route, COUNT) == (200, b"2"), "the data path needs no controller"
            inst.start()
            await asyncio.wait_for(proxy.table_known.wait(), 5)
            assert proxy.routes == {route.sandbox_id: route}
            assert await run_in(route, COUNT) == (200, b"3")
            assert {key for key, record in inst.records().items() if record.phase == "pooled"} == pooled
            assert (await proxy.route("next")).sandbox_id in pooled
            # It is watched again.
            os.kill(inst.records()[route.sandbox_id].pid, signal.SIGKILL)
            assert (await proxy.end_of(route)).word == "crash"

    with Installation() as inst:
        drive(work(inst))


def test_a_renewed_controller_takes_over_within_a_second_and_leaves_with_success() -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy:
            route = await proxy.route("lasting")
            begun = time.monotonic()
            assert inst.retire() == 0
            assert time.monotonic() - begun < 3
            inst.start()
            await asyncio.wait_for(proxy.table_known.wait(), 5)
            assert proxy.routes == {route.sandbox_id: route}
            assert "starting" not in inst.phases()

    with Installation() as inst:
        drive(work(inst))


def test_an_address_is_dealt_again_only_when_every_proxy_has_let_go() -> None:
    """Three places, and two proxies of which one clings to a route, whatever becomes of the controller."""

    async def work(inst: Installation) -> None:
        async with client(inst.host) as good, client(inst.host, index=1) as clinging:
            clinging.clings_to = {"stale"}
            held = await clinging.route("stale")
            os.kill(inst.records()[held.sandbox_id].pid, signal.SIGKILL)
            await clinging.end_of(held)
            dealt = []
            for n in range(9):
                if n in {3, 6}:
                    inst.kill()
                    inst.start()
                    for one in (good, clinging):
                        await asyncio.wait_for(one.table_known.wait(), 5)
                route = await good.route(f"other-{n}")
                dealt.append(route.host)
                os.kill(inst.records()[route.sandbox_id].pid, signal.SIGKILL)
                await good.end_of(route)
                gone = route.sandbox_id
                await inst.becomes(lambda gone=gone: gone not in inst.records(), "its slot to come back")  # type: ignore[misc]
            assert held.host not in dealt
            assert len(set(dealt)) == 2
            clinging.clings_to = set()
            clinging.acknowledge()
            await inst.becomes(lambda: not inst.records(), "the last record to go")

    inst = Installation(pool_size=0)
    inst.write_host(sandbox_network=f"{IPv4Network(inst.host.sandbox_network).network_address}/29")
    with inst:
        drive(work(inst))


def test_a_proxys_death_frees_what_it_clung_to_and_ends_the_call_of_its_own_sandbox() -> None:
    program = (
        "import asyncio, sys; sys.path[:0] = sys.argv[1:2]\n"
        "from sandpost.model.host import load\n"
        "from sandpost.model.limits import Tenant\n"
        "from support.controller_bed import client\n"
        "async def main():\n"
        "    async with client(load(sys.argv[2]), index=5) as proxy:\n"
        "        proxy.clings_to = {'shared', 'alone'}\n"
        "        await proxy.route('shared')\n"
        "        await proxy.route(Tenant(name='alone', isolation='per_request'), exclusive=True)\n"
        "        print('ready', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )

    async def work(inst: Installation) -> None:
        tests = str(Path(__file__).parents[1])
        other = subprocess.Popen([sys.executable, "-c", program, tests, inst.host_file], stdout=subprocess.PIPE)
        try:
            assert other.stdout is not None
            assert await asyncio.to_thread(other.stdout.readline) == b"ready\n"
            async with client(inst.host) as proxy:
                shared, alone = sorted(proxy.routes.values(), key=lambda route: route.exclusive)
                os.kill(inst.records()[shared.sandbox_id].pid, signal.SIGKILL)
                await proxy.end_of(shared)
                await asyncio.sleep(1)
                assert inst.records()[shared.sandbox_id].phase == "gone"
                other.kill()
                await inst.becomes(lambda: shared.sandbox_id not in inst.records(), "the slot to come back")
                assert (await proxy.end_of(alone)).word == "done"
        finally:
            other.kill()
            other.communicate()

    with Installation() as inst:
        drive(work(inst))


def test_what_is_in_doubt_is_removed_at_the_start() -> None:
    """A start cut short, a sandbox of a newer release, one without a record, a damaged record, a pooled one that is mute."""

    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy:
            kept = await proxy.route("kept")
            newer = await proxy.route("newer")
            lost = await proxy.route("lost")
        await inst.becomes(lambda: inst.phases().count("pooled") == 2, "the pool")
        inst.kill()
        records = inst.records()
        mute, starting = sorted(key for key, record in records.items() if record.phase == "pooled")
        _change(inst, newer.sandbox_id, version=99, limits={"unheard-of": 1})
        Path(inst.host.path("records"), f"{lost.sandbox_id}.json").unlink()
        Path(inst.host.path("records"), "0123456789ab.json").write_bytes(b"{")
        _change(inst, starting, phase="starting")
        os.kill(records[mute].pid, signal.SIGSTOP)
        # PID 1 of a sandbox takes the stop from outside; its runtime is stopped with it by its group's kill later.
        for pid in _children(records[mute].pid):
            os.kill(pid, signal.SIGSTOP)
        inst.start()
        async with client(inst.host) as proxy:
            assert set(proxy.routes) == {kept.sandbox_id}
            assert await run_in(kept, COUNT) == (200, b"1")
            await inst.becomes(lambda: inst.phases() == ["assigned", "pooled", "pooled"], "all else to be removed")
            assert not {newer.sandbox_id, lost.sandbox_id, mute, starting} & set(inst.records())
            for key in (newer.sandbox_id, mute, starting):
                assert not os.path.exists(f"/proc/{records[key].pid}") or _is_zombie(records[key].pid)

    with Installation() as inst:
        drive(work(inst))


def test_limits_are_put_in_force_again_by_the_next_controller() -> None:
    """A controller that died between the record of an assignment and its limits."""

    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy:
            route = await proxy.route("limited")
            inst.kill()
            limits = msgspec.structs.replace(inst.host.defaults, memory=48 * MiB)
            _change(inst, route.sandbox_id, limits=msgspec.to_builtins(limits))
            inst.start()
            await asyncio.wait_for(proxy.table_known.wait(), 5)
            await run_in(route, "return (cb) => { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)) }")
            assert (await proxy.end_of(route)).message == "memory: 48 MiB reached"

    with Installation() as inst:
        drive(work(inst))


@pytest.mark.long
def test_usage_survives_a_killed_controller_but_for_its_last_seconds() -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy:
            route = await proxy.route("using")
            proxy.send(Report(activities=[Activity(sandbox_id=route.sandbox_id, calls=5, bytes_in=7)]))
            await inst.becomes(lambda: b"using" in _read(inst.host.path("usage.json")), "usage on disk", 10)
            inst.kill()
            inst.start()
            async with client(inst.host, "api") as api:
                used = await api.until(lambda: api.usage.get("using"), "its usage")
                assert (used.calls, used.bytes_in) == (5, 7)
                await asyncio.sleep(6)
                assert api.usage["using"].calls == 5
                assert api.usage["using"].cpu_seconds < 2

    with Installation() as inst:
        drive(work(inst))


def _change(inst: Installation, sandbox_id: str, **fields: object) -> None:
    path = Path(inst.host.path("records"), f"{sandbox_id}.json")
    path.write_bytes(msgspec.json.encode({**msgspec.json.decode(path.read_bytes()), **fields}))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _read(path: str) -> bytes:
    return Path(path).read_bytes() if os.path.exists(path) else b""

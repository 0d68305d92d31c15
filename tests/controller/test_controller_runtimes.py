"""A tenant's sandboxes of two runtimes, really started: one budget, and the walls of any two sandboxes between them."""

import asyncio

from sandpost.controller.room import MiB
from sandpost.model.limits import Limits, Tenant
from sandpost.model.messages import Route, TenantChanged
from support.controller_bed import Client, Installation, client, drive, run_in

FILL = (
    "const kept = []; return (cb) => { for (let n = 0; n < %d; n++) kept.push(Buffer.alloc(1 << 20, 1)); cb(null, 1) }"
)
FILL_IN_PYTHON = "kept = []\ndef main(context):\n    kept.append(b'x' * (%d << 20))\n    return 1"
COUNT_IN_PYTHON = "n = 0\ndef main(context):\n    global n\n    n += 1\n    return n"
REACH = """
import socket
def main(context):
    try:
        socket.create_connection(({host!r}, {port}), 1).close()
    except OSError:
        return "refused"
    return "reached"
"""


async def both(proxy: Client, tenant: Tenant | str) -> tuple[Route, Route]:
    node = await proxy.route(tenant)
    return node, await proxy.route(tenant, runtime="python")


def test_a_further_runtime_starts_in_its_tenants_group_and_alone_it_gets_its_own(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            node, python = await both(proxy, "two")
            assert (node.runtime, python.runtime) == ("node", "python")
            assert await run_in(node, "return (cb) => cb(null, process.version.slice(0, 1))") == (200, b'"v"')
            assert await run_in(python, COUNT_IN_PYTHON) == (200, b"1")
            records = inst.records()
            assert records[node.sandbox_id].group_id == records[python.sandbox_id].group_id
            assert records[node.sandbox_id].slot != records[python.sandbox_id].slot
            # Asked for again it is the same one; another tenant's is another one in another group.
            assert await proxy.route("two", runtime="python") == python
            other = await proxy.route("alone", runtime="python")
            assert await run_in(other, COUNT_IN_PYTHON) == (200, b"1")
            assert inst.records()[other.sandbox_id].group_id != records[python.sandbox_id].group_id
            shown = {(info.tenant, info.runtime) for info in await api.infos("two")}
            assert shown == {("two", "node"), ("two", "python")}
            status = await api.ask_status()
            assert status.runtimes["python"].assigned == 2

    drive(work())


def test_a_tenants_sandboxes_share_one_memory(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy:
            # Either fits where the tenant has nothing else; together they do not.
            for runtime, program in (("node", FILL % 70), ("python", FILL_IN_PYTHON % 70)):
                alone = await proxy.route(f"alone-{runtime}", runtime=runtime)
                assert (await run_in(alone, program))[0] == 200
            node, python = await both(proxy, Tenant(name="greedy", limits=Limits(memory=128 * MiB)))
            assert (await run_in(node, FILL % 70))[0] == 200
            status, _ = await run_in(python, FILL_IN_PYTHON % 70)
            ended = await proxy.until(
                lambda: [gone for gone in proxy.gone.values() if gone.tenant == "greedy"], "an end by memory"
            )
            assert {gone.word for gone in ended} == {"memory"}
            assert status == 0 or python.sandbox_id not in {gone.sandbox_id for gone in ended}

    drive(work())


def test_a_tenants_sandboxes_do_not_reach_one_another(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy:
            node, python = await both(proxy, "apart")
            assert await run_in(python, REACH.format(host=node.host, port=node.port)) == (200, b'"refused"')
            write = "return (cb) => { require('fs').writeFileSync('/tmp/mine', 'x'); cb(null, require('fs').readdirSync('/tmp')) }"
            assert await run_in(node, write) == (200, b'["mine"]')
            seen = "import os\ndef main(context):\n    return [os.listdir('/tmp'), [pid for pid in os.listdir('/proc') if pid.isdigit()]]"
            status, body = await run_in(python, seen)
            assert status == 200
            assert b"mine" not in body
            assert body.count(b",") <= 4, "processes of the other sandbox are seen"

    drive(work())


def test_both_outlive_a_killed_controller_and_end_with_their_tenant() -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            node, python = await both(proxy, "lasting")
            assert await run_in(python, COUNT_IN_PYTHON) == (200, b"1")
            inst.kill()
            assert await run_in(python, COUNT_IN_PYTHON) == (200, b"2"), "the data path needs no controller"
            inst.start()
            await asyncio.wait_for(proxy.table_known.wait(), 5)
            assert proxy.routes == {node.sandbox_id: node, python.sandbox_id: python}
            await api.until(
                lambda: api.send(TenantChanged(seq=7, tenant=Tenant(name="lasting", state="suspended"))), "a line"
            )
            for route in (node, python):
                await proxy.end_of(route)
            await inst.becomes(
                lambda: not any(one.tenant == "lasting" for one in inst.records().values()), "their records to go"
            )

    with Installation() as inst:
        drive(work(inst))


def test_a_pool_of_python_is_learned_and_what_nobody_asks_for_has_none() -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            await inst.becomes(lambda: inst.phases().count("pooled") == 2, "the pool of node")
            assert "python" not in (await api.ask_status()).runtimes
            for number in range(4):
                await proxy.route(f"asker-{number}", runtime="python")
            told = (await api.ask_status()).runtimes["python"]
            assert told.assigned == 4
            assert 0 < told.pool_target <= 8

    with Installation() as inst:
        drive(work(inst))

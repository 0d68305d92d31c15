"""Ways out as the controller keeps them: in the firewall, towards egress, in the tenants' logs. All in a lab."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network
from typing import Any

import msgspec
import pytest

from sandpost.model.limits import Limits, Tenant
from sandpost.model.messages import Noted, Refused, Route, TenantChanged
from sandpost.network.firewall import nft, readback
from support.controller_bed import Client, Installation, client, drive, run
from support.lab import FORBIDDEN, PUBLIC, Lab, lab

REACH = """module.exports = (cb) => {
  const sock = require('net').connect({ host: '%s', port: %d, timeout: 1000 });
  sock.on('connect', () => { sock.destroy(); cb(null, 'reached'); });
  sock.on('error', (error) => cb(null, error.code));
  sock.on('timeout', () => { sock.destroy(); cb(null, 'silence'); });
};"""


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Lab]:
    with lab() as made:
        yield made


async def reach(made: Lab, route: Route, address: str, port: int = 80) -> str:
    """What a program in a sandbox meets when it connects."""
    status, body = await asyncio.to_thread(lambda: made.host.run(run, route, REACH % (address, port)))
    assert status == 200, body
    return str(msgspec.json.decode(body))


def listing(made: Lab, inst: Installation) -> dict[str, Any]:
    found = made.host.run(nft.listed, inst.host)
    assert found is not None
    return found


def test_a_way_is_open_when_a_route_is_granted_and_shut_with_its_end(laboratory: Lab) -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy:
            route = await proxy.route("acme")
            assert await reach(laboratory, route, PUBLIC) == "reached"
            assert await reach(laboratory, route, FORBIDDEN[0]) == "ECONNREFUSED"
            closed = await proxy.route(Tenant(name="closed", egress="none"))
            assert await reach(laboratory, closed, PUBLIC) == "ECONNREFUSED"
            assert [key[1] for key in readback.tenants(listing(laboratory, inst))] == [route.host]
            os.kill(inst.records()[route.sandbox_id].pid, signal.SIGKILL)
            await proxy.end_of(route)
            assert readback.tenants(listing(laboratory, inst)) == {}

    with Installation(laboratory.host) as inst:
        drive(work(inst))


def test_a_changed_policy_holds_at_once_and_ways_outlive_the_controller(laboratory: Lab) -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api, client(inst.host, "egress") as egress:
            route = await proxy.route("acme")
            assert await reach(laboratory, route, PUBLIC) == "reached"
            tenant = Tenant(name="acme", limits=Limits(connections=9), egress=f"allow:{PUBLIC}:443")
            api.send(TenantChanged(seq=7, tenant=tenant))
            await api.until(lambda: 7 in api.done, "the change")
            assert egress.ways[route.sandbox_id].egress == tenant.egress
            assert await reach(laboratory, route, PUBLIC, 443) == "reached"
            # TCP to all else meets the gate, which nobody keeps here.
            assert await reach(laboratory, route, PUBLIC, 80) == "ECONNREFUSED"
            before = readback.tenants(listing(laboratory, inst))
            inst.kill()
            inst.start()
            assert readback.tenants(listing(laboratory, inst)) == before
            assert readback.connections(listing(laboratory, inst)) == {next(iter(before.values())): "count_9"}
            assert await reach(laboratory, route, PUBLIC, 443) == "reached"
            assert await reach(laboratory, route, PUBLIC, 80) == "ECONNREFUSED"
            await egress.until(lambda: route.sandbox_id in egress.ways, "the way again")

    with Installation(laboratory.host) as inst:
        drive(work(inst))


def test_resolvers_that_egress_may_ask_change_with_the_settings(laboratory: Lab) -> None:
    async def work(inst: Installation) -> None:
        assert readback.resolvers(listing(laboratory, inst)) == {("10.9.0.2", 53)}
        inst.write_host(resolvers=["10.9.0.3:5353", "[2001:db8::1]:53"])
        assert inst.process is not None
        inst.process.send_signal(signal.SIGHUP)
        wanted = {("10.9.0.3", 5353), ("2001:db8::1", 53)}
        await inst.becomes(lambda: readback.resolvers(listing(laboratory, inst)) == wanted, "the new resolvers")

    inst = Installation(laboratory.host, resolvers=["10.9.0.2:53"])
    with inst:
        drive(work(inst))


def test_an_address_is_dealt_again_only_when_egress_has_let_go_of_it(laboratory: Lab) -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy, client(inst.host, "egress") as egress:
            egress.clings_to = {"stale"}
            held = await proxy.route("stale")
            assert egress.ways[held.sandbox_id].address == held.host
            assert (egress.ways[held.sandbox_id].tenant, egress.ways[held.sandbox_id].egress) == ("stale", "public")
            await end(inst, proxy, held)
            await egress.end_of(held)
            dealt = [await once(inst, proxy, f"other-{n}") for n in range(5)]
            assert held.host not in dealt
            egress.clings_to = set()
            egress.acknowledge()
            await inst.becomes(lambda: not inst.records(), "the last record to go")
            assert held.host in [await once(inst, proxy, f"more-{n}") for n in range(3)]

    inst = Installation(laboratory.host, pool_size=0)
    inst.write_host(sandbox_network=f"{IPv4Network(inst.host.sandbox_network).network_address}/29")
    with inst:
        drive(work(inst))


def notes(inst: Installation, tenant: str) -> list[dict[str, Any]]:
    """Return what a tenant was warned of."""
    return [record for record in inst.heard.of(tenant) if record["level"] == 40]


def test_what_a_program_was_refused_is_noted_for_its_tenant(laboratory: Lab) -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy:
            route = await proxy.route("acme")
            for _ in range(3):
                await reach(laboratory, route, FORBIDDEN[0])
            await inst.becomes(lambda: notes(inst, "acme"), "the note")
            noted = notes(inst, "acme")[0]
            assert (noted["sandbox_id"], noted["level"], noted["container"]) == (route.sandbox_id, 40, "acme")
            assert "no sandbox may reach 10.0.0.5 (private)" in noted["msg"]
            assert "sandbox" not in noted

    with Installation(laboratory.host) as inst:
        drive(work(inst))


def test_what_egress_notes_reaches_the_tenant_at_a_bounded_rate(laboratory: Lab) -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy, client(inst.host, "egress") as egress:
            route = await proxy.route("acme")
            egress.send(Noted(sandbox_id="f" * 12, kind="name_refused", text="nobody's"))
            egress.send(Noted(sandbox_id=route.sandbox_id, kind="Not a word", text="x"))
            for n in range(200):
                egress.send(Noted(sandbox_id=route.sandbox_id, kind="name_refused", text=f"name {n}", times=2))
            await inst.becomes(lambda: len(notes(inst, "acme")) >= 20, "a burst of notes")
            await asyncio.sleep(0.5)
            told = notes(inst, "acme")
            assert len(told) <= 25
            assert {note["sandbox_id"] for note in told} == {route.sandbox_id}

    with Installation(laboratory.host) as inst:
        drive(work(inst))


@pytest.mark.parametrize(
    "how", [["delete", "table", "inet", "T"], ["flush", "ruleset"], ["flush", "map", "inet", "T", "tenants"]]
)
def test_an_altered_table_is_found_told_and_repaired(laboratory: Lab, how: list[str]) -> None:
    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy:
            route = await proxy.route("acme")
            assert await reach(laboratory, route, PUBLIC) == "reached"
            before = readback.tenants(listing(laboratory, inst))
            command = ["nft", *(inst.host.nft_table if word == "T" else word for word in how)]
            laboratory.host.run(lambda: subprocess.run(command, check=True))
            await inst.becomes(lambda: "is repaired" in inst.output(), "the repair", 2)
            assert readback.tenants(listing(laboratory, inst)) == before
            assert laboratory.host.run(lambda: nft.altered(inst.host, nft.listed(inst.host))) == []
            assert await reach(laboratory, route, PUBLIC) == "reached"
            assert await reach(laboratory, route, FORBIDDEN[0]) == "ECONNREFUSED"

    with Installation(laboratory.host) as inst:
        drive(work(inst))


def test_a_sandbox_whose_way_cannot_be_opened_is_given_to_nobody(laboratory: Lab) -> None:
    """Somebody keeps a table of our name in which our elements do not fit."""

    async def work(inst: Installation) -> None:
        async with client(inst.host) as proxy:
            await inst.becomes(lambda: inst.phases() == ["pooled", "pooled"], "the pool")
            table = inst.host.nft_table
            laboratory.host.run(
                lambda: subprocess.run(
                    ["nft", "-f", "-"], check=True, text=True,
                    input=f"delete table inet {table}\ntable inet {table} {{ map tenants {{ type mark : mark; }}; }}",
                )
            )  # fmt: skip
            answer = await proxy.answer(proxy.ask("acme"))
            # Repaired on the way; else refused, but never a route without its walls.
            if not isinstance(answer, Refused):
                assert await reach(laboratory, answer.route, FORBIDDEN[0]) == "ECONNREFUSED"
                assert laboratory.host.run(lambda: nft.altered(inst.host, nft.listed(inst.host))) == []

    with Installation(laboratory.host) as inst:
        drive(work(inst))


async def end(inst: Installation, proxy: Client, route: Route) -> None:
    os.kill(inst.records()[route.sandbox_id].pid, signal.SIGKILL)
    await proxy.end_of(route)


async def once(inst: Installation, proxy: Client, tenant: str) -> str:
    """Use an address up once: return it when its sandbox is gone."""
    route = await proxy.route(tenant)
    await end(inst, proxy, route)
    await inst.becomes(lambda: route.sandbox_id not in inst.records(), "its slot to come back")
    return route.host

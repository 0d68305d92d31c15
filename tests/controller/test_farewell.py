"""Sandboxes that are asked to end before they are killed: which, for how long, and what comes of those that do not."""

import asyncio
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sandpost.controller.farewell import due
from sandpost.controller.ledger import Ledger
from sandpost.controller.lifecycle import Sandbox
from sandpost.controller.maker import Maker
from sandpost.controller.meter import Meter
from sandpost.controller.record import ProxyKey, Record
from sandpost.engines.contract import Consumption
from sandpost.kernel.processes import start_time
from sandpost.model.ends import ALL, End
from sandpost.model.limits import Limits, Tenant
from sandpost.model.messages import Gone, Route, TenantChanged
from sandpost.model.runtimes import RUNTIMES
from support.controller_bed import Client, Installation, client, drive, run_in
from support.installation import host_in, wait_for
from support.lifespan import ends_with

PATIENCE = RUNTIMES["python"].farewell
SLOW = ends_with("await asyncio.sleep(1.2)")
NEVER = ends_with("await asyncio.sleep(60)")
STUBBORN = "process.on('SIGTERM', () => {}); return cb => cb(null, 1)"


def record(**changes: Any) -> Record:
    made: dict[str, Any] = {
        "sandbox_id": "s", "group_id": "g", "slot": 1, "phase": "gone", "runtime": "python", "image": "i",
        "limits": Limits(), "started_at": 1.0, "tenant": "a", "word": "idle",
    }  # fmt: skip
    return Record(**(made | changes))


def test_who_is_asked() -> None:
    assert {word for word in ALL if due(record(), word)} == {"idle", "age", "count", "drained"}
    assert due(record(), "idle") == PATIENCE
    owner = ProxyKey(pid=1, index=0)
    for other in ({"runtime": "node"}, {"tenant": None}, {"exclusive": True, "owner": owner}, {"runtime": "gone"}):
        assert due(record(**other), "drained") == 0, other


# --- the maker ------------------------------------------------------------------------------------------------------


class Parts:
    """Engine, FIFOs and meter of a maker."""

    def __init__(self) -> None:
        self.removed: dict[str, float] = {}
        self.parted_after = 0.0

    def watch_memory(self, *_: Any) -> Any:
        return lambda: None

    def parted(self, sandbox: Sandbox, seconds: float) -> None:
        assert sandbox.sandbox_id not in self.removed, "there is nothing left to read"
        self.parted_after = seconds

    async def remove(self, sandbox_id: str, *_: Any) -> None:
        self.removed[sandbox_id] = time.monotonic()


class Fifos:
    def remove(self, _sandbox_id: str) -> None: ...


class Made:
    """Sandboxes of a maker that are processes of a shell, one for each of `does`, which it does on a SIGTERM."""

    def __init__(self, folder: Path, *does: str) -> None:
        self.parts = Parts()
        anything: Any = self.parts
        fifos: Any = Fifos()
        self.maker = Maker(host_in("/nonexistent"), anything, fifos, anything)
        self.ends: list[str] = []
        self.gone: list[Sandbox] = []
        self.maker.ended = lambda _sandbox, word, _message: self.ends.append(word)
        self.maker.removed = self.gone.append
        self.maker.forget = lambda _slot: asyncio.sleep(0)
        self.processes = []
        self.sandboxes = []
        for n, what in enumerate(does):
            ready = folder / f"ready{n}"
            command = f"trap '{what}' TERM; : >{ready}; while :; do sleep 0.05; done"
            self.processes.append(subprocess.Popen(["/bin/sh", "-c", command], cwd=folder))
            wait_for(ready.exists)
            sandbox = Sandbox(record(sandbox_id=f"s{n}", phase="assigned", word=None, pid=self.processes[-1].pid))
            sandbox.pid = self.processes[-1].pid
            self.sandboxes.append(sandbox)

    def remove(self, word: End, **changes: Any) -> float:
        """End them all for `word`, as the life cycle does; return when."""
        began = time.monotonic()
        for sandbox in self.sandboxes:
            self.maker.adopt(sandbox)
            was = sandbox.record
            sandbox.record = record(sandbox_id=was.sandbox_id, pid=was.pid, word=word, **changes)
            self.maker.remove(sandbox)
        return began

    async def close(self) -> None:
        await self.maker.close()
        for process in self.processes:
            process.kill()
            process.wait()


def test_its_own_end_is_waited_for_and_its_status_is_no_word(tmp_path: Path) -> None:
    async def work() -> None:
        made = Made(tmp_path, "sleep 0.5; echo said >said; exit 3")
        try:
            began = made.remove("count")
            await made.maker.settle(10)
            assert 0.5 <= made.parts.removed["s0"] - began < PATIENCE - 0.5
            assert 0.5 <= made.parts.parted_after < PATIENCE - 0.5
            assert (tmp_path / "said").read_text() == "said\n"
            assert (made.gone, made.ends) == (made.sandboxes, [])
        finally:
            await made.close()

    asyncio.run(work())


def test_those_that_do_not_end_are_removed_after_their_time_all_together(tmp_path: Path) -> None:
    async def work() -> None:
        made = Made(tmp_path, *[":"] * 20)
        try:
            began = made.remove("drained")
            await made.maker.settle(10)
            assert len(made.parts.removed) == 20
            assert all(PATIENCE - 0.1 <= at - began < PATIENCE + 1 for at in made.parts.removed.values())
        finally:
            await made.close()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("word", "changes"),
    [
        ("evicted", {}),
        ("blocked", {}),
        ("platform", {}),
        ("drained", {"runtime": "node"}),
        ("done", {"exclusive": True, "owner": ProxyKey(pid=1, index=0)}),
    ],
)
def test_others_are_killed_at_once(tmp_path: Path, word: End, changes: dict[str, Any]) -> None:
    async def work() -> None:
        made = Made(tmp_path, "echo said >said")
        try:
            began = made.remove(word, **changes)
            await made.maker.settle(10)
            assert made.parts.removed["s0"] - began < 0.5
            assert made.processes[0].wait(1) == -signal.SIGKILL
            assert not (tmp_path / "said").exists()
        finally:
            await made.close()

    asyncio.run(work())


def test_one_that_ended_meanwhile_is_not_waited_for(tmp_path: Path) -> None:
    async def work() -> None:
        made = Made(tmp_path, ":")
        made.maker.parent_tells = lambda: True
        try:
            made.maker.adopt(made.sandboxes[0])
            made.processes[0].kill()
            # Its status is waited for; before it comes the sandbox ends for another reason.
            await asyncio.sleep(0.05)
            made.sandboxes[0].record = record(sandbox_id="s0", pid=made.sandboxes[0].pid)
            began = time.monotonic()
            made.maker.remove(made.sandboxes[0])
            await made.maker.settle(10)
            assert made.parts.removed["s0"] - began < 0.5
        finally:
            await made.close()

    asyncio.run(work())


@pytest.mark.parametrize("removed", [False, True])
def test_what_it_uses_then_is_the_tenants_unless_he_was_removed(*, removed: bool) -> None:
    class Engine:
        def consumption(self, *_: Any) -> Consumption:
            return Consumption(memory=100, cpu_seconds=3.5, pids=1, oom_kills=0)

    engine: Any = Engine()
    fleet: Any = SimpleNamespace(tenants={})
    meter = Meter(fleet, engine, Ledger())
    sandbox = Sandbox(record())
    sandbox.cpu_seconds, sandbox.memory = 3.0, 300
    fleet.tenants["a"] = {"s": sandbox}
    if removed:
        meter.disown("a", 1.0)
    meter.parted(sandbox, 2.0)
    entered = [(item.tenant, item.cpu_seconds, item.memory_seconds) for item in meter.ledger.snapshot().open]
    assert entered == ([] if removed else [("a", 0.5, 400.0)])


# --- really -----------------------------------------------------------------------------------------------------


def runs(pid: int) -> bool:
    """Whether a process lives; one that only waits to be reaped does not."""
    return start_time(pid) != 0


async def served(proxy: Client, inst: Installation, tenant: str, program: str) -> tuple[Route, int]:
    """Have a tenant's program called in its sandbox of Python; return where, and its first process."""
    route = await proxy.route(tenant, runtime="python")
    assert (await run_in(route, program))[0] == 200
    return route, inst.records()[route.sandbox_id].pid


async def suspended(proxy: Client, api: Client, *routes: Route) -> list[Gone]:
    for route in routes:
        api.send(TenantChanged(seq=1, tenant=Tenant(name=route.tenant, state="suspended")))
    return [await proxy.end_of(route) for route in routes]


def test_an_application_that_is_drained_has_its_time_and_no_more(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            slow, slow_pid = await served(proxy, inst, "slow", SLOW)
            never, never_pid = await served(proxy, inst, "never", NEVER)
            plain, plain_pid = await served(proxy, inst, "plain", "def main(context):\n    return 1")
            began = time.monotonic()
            ends = await suspended(proxy, api, slow, never, plain)
            assert [end.word for end in ends] == ["drained"] * 3
            await inst.becomes(lambda: not runs(plain_pid), "the end of one that wants no word")
            assert time.monotonic() - began < 1
            await inst.becomes(lambda: not runs(slow_pid), "its own end")
            assert 1.2 <= time.monotonic() - began < 2.2
            await inst.becomes(lambda: not runs(never_pid), "its end")
            assert 2 <= time.monotonic() - began < 4
            await inst.becomes(lambda: not {r.sandbox_id for r in (slow, never, plain)} & inst.records().keys(), "all")

    drive(work())


def test_a_program_of_node_that_keeps_the_signal_ends_at_once(inst: Installation) -> None:
    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            route = await proxy.route("stubborn")
            assert (await run_in(route, STUBBORN))[0] == 200
            pid = inst.records()[route.sandbox_id].pid
            began = time.monotonic()
            await suspended(proxy, api, route)
            await inst.becomes(lambda: not runs(pid), "its end")
            assert time.monotonic() - began < 1

    drive(work())


def test_a_controller_that_is_killed_meanwhile_leaves_it_to_its_successor(shared: Installation) -> None:
    inst = shared
    pids: list[int] = []

    async def work() -> None:
        async with client(inst.host) as proxy, client(inst.host, "api") as api:
            route, pid = await served(proxy, inst, "left", NEVER)
            await suspended(proxy, api, route)
            inst.kill()
            pids.append(pid)

    drive(work())
    (pid,) = pids
    assert runs(pid)
    inst.start()
    inst.until(lambda: not runs(pid), "its end", 1.5)

    async def let_go() -> None:
        async with client(inst.host):
            await inst.becomes(lambda: "left" not in {one.tenant for one in inst.records().values()}, "its removal")

    drive(let_go())


def test_all_that_run_when_the_installation_ends_have_their_time_together() -> None:
    with Installation(pool_size=0) as inst:

        async def work() -> None:
            async with client(inst.host) as proxy:
                for n in range(4):
                    await served(proxy, inst, f"t{n}", NEVER)

        drive(work())
        inst.retire()
        began = time.monotonic()
        assert inst.purge() == 0
        assert 2 <= time.monotonic() - began < 5

"""Memory: of idle sandboxes, of the platform's own processes, and when tenants want more than there is."""

import asyncio
import contextlib
import time

import uvloop

from bench import machine
from bench.client import BrokenAnswer, Connection, ask_once, post
from bench.machine import MiB
from bench.options import Options
from bench.result import Figure, Result, milliseconds, percentile
from bench.running import PROGRAM, BareNode, Platform

_SETTLE = 15.0


def idle(options: Options) -> Result:
    """Tenants that were answered once and then rest. The platform's processes are weighed before they come."""
    count, bare_count = options.pick(200, 30), options.pick(40, 10)

    async def call_all(platform: Platform) -> None:
        for number in range(count):
            answer = await ask_once(platform.port, post(f"/idle{number}", platform.key, PROGRAM))
            if answer.status != 200:
                raise RuntimeError(f"tenant {number}: {answer.status} {answer.body[:300]!r}")

    with Platform(pool_size="0", limits_idle="1h") as platform:
        # One, so that what all sandboxes share is in memory already.
        uvloop.run(ask_once(platform.port, post("/before", platform.key, PROGRAM)))
        time.sleep(_SETTLE)
        before = machine.available()
        uvloop.run(call_all(platform))
        time.sleep(_SETTLE)
        each = (before - machine.available()) / count
    with Platform() as platform:
        platform.wait_pool()
        time.sleep(_SETTLE)
        sizes = platform.pss()
    with contextlib.ExitStack() as stack:
        stack.enter_context(BareNode())
        before = machine.available()
        for _ in range(bare_count):
            stack.enter_context(BareNode())
        time.sleep(2)
        bare_each = (before - machine.available()) / bare_count
        bare = stack.enter_context(BareNode())
        bare_pss = machine.pss(bare.pid)
    parts = ", ".join(f"{part} {size / MiB:.0f}" for part, size in sorted(sizes.items()))
    return Result(
        figures=[
            Figure(
                name=f"idle sandbox, by MemAvailable over {count}",
                value=each / 1e6,
                unit="MB",
                goal=12.0,
                reference=bare_each / 1e6,
                beside=f"bare Node processes, over {bare_count}",
                note="whatever else runs on the machine is in it",
            ),
            Figure(
                name="all platform processes together, idle, PSS",
                value=sum(sizes.values()) / 1e6,
                unit="MB",
                goal=250.0,
                reference=bare_pss / 1e6,
                beside="one bare Node process",
                note=f"MiB: {parts}",
            ),
        ]
    )


def full(options: Options) -> Result:
    """Tenants that keep 100 MiB each under a parent limit that a few of them fill, and a small neighbour."""
    count, at_once = options.pick(300, 30), 6
    fill = b"var keep = Buffer.alloc(100 << 20, 1); return function (cb) { cb(null, keep.length) }"
    small = b"var keep = Buffer.alloc(8 << 20, 1); return function (cb) { cb(null, keep[keep.length - 1]) }"
    # What sandboxes may have together: some 2.5 GiB, or as little as the setting allows.
    reserve = min(0.9, max(0.1, 1 - 2.5 * (1 << 30) / machine.total()))

    async def neighbour(platform: Platform, times: list[float], lost: list[str], until: asyncio.Event) -> None:
        while not until.is_set():
            try:
                async with Connection(platform.port) as connection:
                    while not until.is_set():
                        answer = await connection.ask(post("/neighbour", platform.key, small))
                        times.append(answer.seconds)
                        if answer.status != 200:
                            lost.append(f"{answer.status} {answer.body[:200]!r}")
                        await asyncio.sleep(0.02)
            except (BrokenAnswer, OSError) as error:
                lost.append(str(error))

    async def fillers(platform: Platform, outcomes: dict[str, int]) -> None:
        numbers = iter(range(count))

        async def client() -> None:
            for number in numbers:
                try:
                    answer = await ask_once(platform.port, post(f"/fill{number}", platform.key, fill))
                    outcome = str(answer.status)
                except (BrokenAnswer, OSError) as error:
                    outcome = type(error).__name__
                outcomes[outcome] = outcomes.get(outcome, 0) + 1

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(client())

    async def measure(platform: Platform) -> tuple[list[float], list[float], list[str], dict[str, int]]:
        quiet: list[float] = []
        times: list[float] = []
        lost: list[str] = []
        outcomes: dict[str, int] = {}
        for taken, work in ((quiet, asyncio.sleep(5)), (times, fillers(platform, outcomes))):
            over = asyncio.Event()
            task = asyncio.create_task(neighbour(platform, taken, lost, over))
            await work
            over.set()
            await task
        return quiet, times, lost, outcomes

    with Platform(memory_reserve=f"{reserve:.3f}", limits_memory="192MiB") as platform:
        uvloop.run(ask_once(platform.port, post("/neighbour", platform.key, small)))
        quiet, times, lost, outcomes = uvloop.run(measure(platform))
        held = next((box["memory"] for box in platform.sandboxes() if box["tenant"] == "neighbour"), 0)
        ends = platform.status().ends
    for line in lost[:5]:
        options.say(f"lost: {line}")
    told = ", ".join(f"{number} {word}" for word, number in sorted(ends.items()) if number) or "none"
    shown = ", ".join(f"{number} x {outcome}" for outcome, number in sorted(outcomes.items()))
    return Result(
        figures=[
            Figure(
                name=f"{count} tenants filling 100 MiB each: calls that a neighbour lost",
                value=len(lost),
                unit="",
                goal=0,
                note=f"of {len(times)}; it held {held / MiB:.0f} MiB; fillers: {shown}; ends: {told}",
            ),
            Figure(
                name="the neighbour's calls meanwhile, p99",
                value=milliseconds(percentile(times, 0.99)),
                unit="ms",
                reference=milliseconds(percentile(quiet, 0.99)),
                beside="its calls before",
                note=f"slowest {milliseconds(max(times)):.0f} ms",
            ),
        ]
    )

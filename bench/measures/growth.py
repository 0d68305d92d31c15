"""How the cost of a warm call grows with the tenants that are alive."""

import asyncio

import uvloop

from bench.client import ask_once, post
from bench.measures.warm import pairs
from bench.options import Options
from bench.result import Figure, Result, median, milliseconds
from bench.running import PROGRAM, BareNode, Platform

_AT_ONCE = 4


def growth(options: Options) -> Result:
    """The same warm load on one tenant while 1, 100 and 1,000 are alive."""
    steps = (1, 100, 1000) if not options.quick else (1, 10, 30)
    rounds, seconds = options.pick(3, 1), options.pick(4, 2)

    async def bring_up(platform: Platform, first: int, last: int) -> None:
        numbers = iter(range(first, last))

        async def client() -> None:
            for number in numbers:
                for attempt in range(20):
                    answer = await ask_once(platform.port, post(f"/alive{number}", platform.key, PROGRAM))
                    if answer.status == 200:
                        break
                    await asyncio.sleep(0.1 * attempt)
                else:
                    raise RuntimeError(f"tenant {number}: {answer.status} {answer.body[:300]!r}")

        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(client())

    figures: list[Figure] = []
    one_p50 = one_rate = 0.0
    with Platform(limits_idle="1h") as platform, BareNode() as bare:
        alive = 0
        for step in steps:
            uvloop.run(bring_up(platform, alive, step))
            alive = step
            platform.wait_pool()
            options.say(f"{alive} tenants alive")
            single, _ = pairs(platform, bare, "alive0", connections=1, rounds=rounds, seconds=seconds)
            loaded, theirs = pairs(platform, bare, "alive0", connections=32, rounds=rounds, seconds=seconds)
            p50 = median([milliseconds(run.p50) for run in single])
            share = median([run.rate for run in loaded]) / median([run.rate for run in theirs])
            if step == steps[0]:
                one_p50, one_rate = p50, share
            beside = f"with {steps[0]}"
            figures += [
                Figure(
                    name=f"warm call at one connection, {alive:,} alive, p50",
                    value=p50,
                    unit="ms",
                    reference=one_p50,
                    beside=beside,
                ),
                Figure(
                    name=f"warm calls against bare Node, {alive:,} alive",
                    value=share,
                    unit="of bare",
                    better="more",
                    reference=one_rate,
                    beside=beside,
                ),
            ]
    return Result(figures=figures)

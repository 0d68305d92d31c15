"""The first answer of a tenant that nobody has seen before."""

import asyncio
import time

import uvloop

from bench.client import Answer, BrokenAnswer, ask_once, post
from bench.options import Options
from bench.result import Figure, Result, median, milliseconds, percentile
from bench.running import ANSWER, PROGRAM, BareNode, Platform


def check(answer: Answer) -> float:
    """Return the seconds of an answer that is the program's; `RuntimeError` for any other."""
    if answer.status != 200 or answer.body != ANSWER.encode():
        raise RuntimeError(f"a wrong answer: {answer.status} {answer.body[:300]!r}")
    return answer.seconds


async def timed(platform: Platform, tenant: str, program: bytes) -> float:
    """Return the seconds until the answer of a tenant's program, on a new connection; see `check`."""
    return check(await ask_once(platform.port, post(f"/{tenant}", platform.key, program)))


def warm_pool(options: Options) -> Result:
    """New tenants one by one, each when the pool is full and still; beside it, new connections to a bare server."""
    count = options.pick(300, 30)

    async def measure(platform: Platform, bare: BareNode) -> tuple[list[float], list[float]]:
        ours, theirs = [], []
        for number in range(count):
            await asyncio.to_thread(platform.wait_pool)
            await asyncio.sleep(0.05)
            ours.append(await timed(platform, f"first{number}", PROGRAM))
            theirs.append(check(await ask_once(bare.port, post("/", "none", PROGRAM))))
            if (number + 1) % 50 == 0:
                options.say(f"{number + 1} of {count} tenants")
        return ours, theirs

    # Ended when idle, so that what is measured is a host with some tenants and not its end of memory.
    with Platform(limits_idle="30s") as platform, BareNode() as bare:
        ours, theirs = uvloop.run(measure(platform, bare))
    beside = "a new connection to bare Node"
    note = f"{count} tenants, one at a time"
    return Result(
        figures=[
            Figure(
                name=f"first answer of a new tenant, pool warm, p{share:.0f}",
                value=milliseconds(percentile(ours, share / 100)),
                unit="ms",
                goal=goal,
                reference=milliseconds(percentile(theirs, share / 100)),
                beside=beside,
                note=note,
            )
            for share, goal in ((50, 5.0), (99, 20.0))
        ]
    )


def empty_pool(options: Options) -> Result:
    """New tenants one by one without a pool; beside it, a bare Node process from its start to its first answer."""
    count = options.pick(100, 10)

    async def measure(platform: Platform) -> list[float]:
        ours = []
        for number in range(count):
            while (status := await asyncio.to_thread(platform.status)).pool or status.starting:
                # The pool may grow by the rate of arrivals: what it made is used up, unmeasured.
                await ask_once(platform.port, post(f"/used{number}-{status.starts}", platform.key, PROGRAM))
            ours.append(await timed(platform, f"empty{number}", PROGRAM))
        return ours

    with Platform(pool_size="0", limits_idle="30s") as platform:
        ours = uvloop.run(measure(platform))
    theirs = []
    for _ in range(count):
        began = time.perf_counter()
        with BareNode() as bare:
            uvloop.run(ask_once(bare.port, post("/", "none", PROGRAM)))
            theirs.append(time.perf_counter() - began)
    return Result(
        figures=[
            Figure(
                name="first answer of a new tenant, pool empty, p50",
                value=milliseconds(median(ours)),
                unit="ms",
                goal=70.0,
                reference=milliseconds(median(theirs)),
                beside="a bare Node process started and asked",
                note=f"{count} tenants; p99 {milliseconds(percentile(ours, 0.99)):.0f} ms",
            )
        ]
    )


def sustained(options: Options) -> Result:
    """New tenants as fast as they are answered, sixteen at a time; what the pool held before does not count."""
    count, at_once = options.pick(300, 40), 16

    async def measure(platform: Platform) -> tuple[float, list[float], int]:
        numbers = iter(range(count))
        times: list[float] = []
        failed = 0

        async def client() -> None:
            nonlocal failed
            for number in numbers:
                try:
                    times.append(check(await ask_once(platform.port, post(f"/new{number}", platform.key, PROGRAM))))
                except (RuntimeError, BrokenAnswer, OSError) as error:
                    failed += 1
                    options.say(str(error))

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(client())
        return time.perf_counter() - began, times, failed

    with Platform() as platform:
        platform.wait_pool()
        pooled = platform.status().pool
        seconds, times, failed = uvloop.run(measure(platform))
    if not times:
        raise RuntimeError("no new tenant was answered")
    processes = options.pick(60, 20)
    began = time.perf_counter()
    for _ in range(processes):
        with BareNode() as bare:
            uvloop.run(ask_once(bare.port, post("/", "none", PROGRAM)))
    bare_rate = processes / (time.perf_counter() - began)
    return Result(
        figures=[
            Figure(
                name=f"new tenants answered a second, over {count}",
                value=(len(times) - pooled) / seconds,
                unit="/s",
                goal=25.0,
                better="more",
                reference=bare_rate,
                beside="bare Node processes, one after another",
                note=f"{failed} failed; p99 of an answer {milliseconds(percentile(times, 0.99)):.0f} ms",
            )
        ]
    )

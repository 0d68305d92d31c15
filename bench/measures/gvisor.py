"""runsc (gVisor) beside runc: two installations of the same machine, measured in turns."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop

from bench import machine
from bench.client import ask_once, post
from bench.measures import warm
from bench.options import Options
from bench.result import Figure, Result, median, milliseconds, percentile
from bench.running import ANSWER, PROGRAM, BareNode, Platform

_SETTLE = 15.0
_RUNC = "the same on runc"


def gvisor(options: Options) -> Result:
    """First answers with a full pool and without one, warm calls, memory at rest."""
    return Result(figures=[*_first(options), *_empty(options), *_warm(options), *_idle(options)])


@contextmanager
def _both(**settings: str) -> Iterator[tuple[Platform, Platform]]:
    with Platform(engine_runtime="runsc", **settings) as strong, Platform(**settings) as plain:
        yield strong, plain


async def _new_tenant(platform: Platform, name: str) -> float:
    """Return the seconds of a new tenant's first call, on a new connection."""
    answer = await ask_once(platform.port, post(f"/{name}", platform.key, PROGRAM))
    if answer.status != 200 or answer.body != ANSWER.encode():
        raise RuntimeError(f"a wrong answer: {answer.status} {answer.body[:300]!r}")
    return answer.seconds


def _first(options: Options) -> list[Figure]:
    count = options.pick(100, 10)

    async def measure(platforms: tuple[Platform, Platform]) -> tuple[list[float], list[float]]:
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(count):
            for platform, found in zip(platforms, times, strict=True):
                for each in platforms:
                    await asyncio.to_thread(each.wait_pool)
                await asyncio.sleep(0.05)
                found.append(await _new_tenant(platform, f"first{number}"))
        return times

    with _both(limits_idle="30s") as platforms:
        ours, theirs = uvloop.run(measure(platforms))
    return [
        Figure(
            name=f"gVisor: first answer of a new tenant, pool warm, p{share:.0f}",
            value=milliseconds(percentile(ours, share / 100)),
            unit="ms",
            goal=goal,
            reference=milliseconds(percentile(theirs, share / 100)),
            beside=_RUNC,
            note=f"{count} tenants, one at a time",
        )
        for share, goal in ((50, 20.0), (99, None))
    ]


def _empty(options: Options) -> list[Figure]:
    count = options.pick(40, 6)

    async def measure(platforms: tuple[Platform, Platform]) -> tuple[list[float], list[float]]:
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(count):
            for platform, found in zip(platforms, times, strict=True):
                while (status := await asyncio.to_thread(platform.status)).pool or status.starting:
                    await _new_tenant(platform, f"used{number}-{status.starts}")
                found.append(await _new_tenant(platform, f"empty{number}"))
        return times

    with _both(pool_size="0", limits_idle="30s") as platforms:
        ours, theirs = uvloop.run(measure(platforms))
    return [
        Figure(
            name="gVisor: first answer of a new tenant, pool empty, p50",
            value=milliseconds(median(ours)),
            unit="ms",
            reference=milliseconds(median(theirs)),
            beside=_RUNC,
            note=f"{count} tenants; p99 {milliseconds(percentile(ours, 0.99)):.0f} ms",
        )
    ]


def _warm(options: Options) -> list[Figure]:
    rounds, seconds = options.pick(5, 2), options.pick(5, 2)
    figures = []
    with _both() as (strong, plain), BareNode() as bare:
        for connections in (32, 1):
            for platform in (strong, plain):
                warm.pairs(platform, bare, "warm", connections=connections, rounds=1, seconds=2)
            ours, theirs, bares = [], [], []
            for _ in range(rounds):
                (mine,), (beside,) = warm.pairs(
                    strong, bare, "warm", connections=connections, rounds=1, seconds=seconds
                )
                (other,), _again = warm.pairs(plain, bare, "warm", connections=connections, rounds=1, seconds=seconds)
                ours.append(mine)
                theirs.append(other)
                bares.append(beside)
            rate, other_rate = median([run.rate for run in ours]), median([run.rate for run in theirs])
            took = f"p50 {milliseconds(median([run.p50 for run in ours])):.2f} ms"
            took += f", p99 {milliseconds(median([run.p99 for run in ours])):.1f} ms"
            figures.append(
                Figure(
                    name=f"gVisor: warm calls a second, connections: {connections}",
                    value=rate,
                    unit="/s",
                    better="more",
                    reference=other_rate,
                    beside=_RUNC,
                    note=took,
                )
            )
            if connections > 1:
                figures.append(
                    Figure(
                        name=f"gVisor: warm calls against bare Node, connections: {connections}",
                        value=rate / median([run.rate for run in bares]),
                        unit="of bare",
                        goal=0.05,
                        better="more",
                        note=f"median of {rounds} runs of {seconds} s",
                    )
                )
    return figures


def _idle(options: Options) -> list[Figure]:
    count = options.pick(60, 10)
    each, groups = [], []
    for engine in ("runsc", "runc"):
        with Platform(engine_runtime=engine, pool_size="0", limits_idle="1h") as platform:
            # One, so that what all sandboxes share is in memory already.
            uvloop.run(_new_tenant(platform, "before"))
            time.sleep(_SETTLE)
            before = machine.available()
            for number in range(count):
                uvloop.run(_new_tenant(platform, f"idle{number}"))
            time.sleep(_SETTLE)
            each.append((before - machine.available()) / count / 1e6)
            groups.append(median([float(one["memory"]) for one in platform.sandboxes()]) / 1e6)
    return [
        Figure(
            name=f"gVisor: idle sandbox, by MemAvailable over {count}",
            value=each[0],
            unit="MB",
            goal=40.0,
            reference=each[1],
            beside=_RUNC,
            note=f"its group {groups[0]:.0f} MB, on runc {groups[1]:.0f}; whatever else runs on the machine is in it",
        )
    ]

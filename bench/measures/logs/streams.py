"""A thousand open streams: what api and proxy use, and how long lines are on their way, beside bare Node."""

import asyncio
import resource
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench import machine
from bench.following import Delays, Follower, paced
from bench.options import Options
from bench.result import Figure, Result, milliseconds, percentile
from bench.running import Platform, beside, free_port, listens, node_binary, wait_until
from bench.talkers import SETTINGS, check_clock, say

_FAN = Path(__file__).parents[2] / "fan.js"
_EACH = 10
"""Streams of a tenant: each line goes out so often."""
_SIZE, _RECORD = 60, 300
"""Characters of a line as it is printed, and of its record, about."""
_SETTLE = 3.0
_AT_ONCE = 4
_ENOUGH = 0.9


@dataclass(frozen=True)
class _Seen:
    """What was measured: cores, bytes (PSS and resident), delays in seconds, lines a second."""

    cores: float
    pss: int
    resident: int
    delays: list[float]
    rate: float


def streams(options: Options) -> Result:
    """2,000 lines a second of 100 tenants to ten streams each; then the same with one bare Node process."""
    tenants, seconds = options.pick(100, 10), options.pick(15, 3)
    lines = 20.0 * tenants
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        with Platform(**SETTINGS) as platform:
            ours = uvloop.run(_platform(platform, tenants, lines, seconds, options))
        with _fan() as (process, port):
            theirs = uvloop.run(_bare(process, port, tenants, lines, seconds))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    beside = "one bare Node process"
    rate = f"{ours.rate:,.0f} lines a second out, {theirs.rate:,.0f} of bare Node"
    return Result(
        figures=[
            Figure(
                name=f"{tenants * _EACH:,} streams, {lines:,.0f} lines a second in: api and proxy",
                value=ours.cores,
                unit="cores",
                goal=1.0,
                reference=theirs.cores,
                beside=beside,
                note=rate,
            ),
            Figure(
                name="the same, memory of api and proxy, PSS",
                value=ours.pss / 1e6,
                unit="MB",
                goal=200.0,
                reference=theirs.pss / 1e6,
                beside=beside,
                note=f"resident {ours.resident / 1e6:.0f} MB, of bare Node {theirs.resident / 1e6:.0f}",
            ),
            Figure(
                name="the same, line written to line read, p99",
                value=milliseconds(percentile(ours.delays, 0.99)),
                unit="ms",
                goal=250.0,
                reference=milliseconds(percentile(theirs.delays, 0.99)),
                beside=f"{beside}, lines from the client",
                note=f"p50 {milliseconds(percentile(ours.delays, 0.5)):.0f} ms,"
                f" slowest {milliseconds(max(ours.delays)):.0f} ms of {len(ours.delays):,}",
            ),
        ]
    )


@asynccontextmanager
async def _open(port: int, targets: Sequence[str], key: str, taken: Delays) -> AsyncIterator[list[Follower]]:
    """Open ten streams of each target."""
    async with AsyncExitStack() as stack:
        followers = [Follower(port, target, key, taken.take) for target in targets for _ in range(_EACH)]
        for follower in followers:
            await stack.enter_async_context(follower)
        yield followers


async def _watch(
    pids: Sequence[int], followers: Sequence[Follower], taken: Delays, lines: float, seconds: int
) -> _Seen:
    """Measure for so many seconds from now on."""
    began, before = time.monotonic(), sum(map(machine.cpu, pids))
    taken.counting = True
    await asyncio.sleep(seconds)
    taken.counting = False
    took, cpu = time.monotonic() - began, sum(map(machine.cpu, pids)) - before
    for follower in followers:
        follower.check()
    rate = len(taken.seconds) / took
    if rate < _ENOUGH * lines * _EACH:
        raise RuntimeError(f"{rate:,.0f} lines a second came out, not {lines * _EACH:,.0f}: the machine is too busy")
    return _Seen(cpu / took, sum(map(machine.pss, pids)), sum(map(machine.resident, pids)), taken.seconds, rate)


async def _platform(platform: Platform, tenants: int, lines: float, seconds: int, options: Options) -> _Seen:
    names = [f"t{number}" for number in range(tenants)]
    waiting = iter(names)

    async def bring_up() -> None:
        for name in waiting:
            await say(platform, name, how="console", rate=20, seconds=0.1)

    await asyncio.gather(*(bring_up() for _ in range(_AT_ONCE)))
    await asyncio.to_thread(platform.wait_pool)
    await check_clock(platform, names[0])
    options.say(f"{tenants} tenants alive")
    taken = Delays()
    taken.counting = False
    targets = [f"/logs/tenant/{name}" for name in names]
    lasts, each = seconds + 2 * _SETTLE, lines / tenants
    async with (
        _open(platform.port, targets, platform.key, taken) as followers,
        beside(*(say(platform, name, how="console", rate=each, seconds=lasts, size=_SIZE) for name in names)),
    ):
        await asyncio.sleep(_SETTLE)
        return await _watch(platform.pids("api", "proxy"), followers, taken, lines, seconds)


@contextmanager
def _fan() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    with subprocess.Popen([node_binary(), str(_FAN), str(port)], stdin=subprocess.PIPE) as process:
        try:
            wait_until(lambda: listens(port), "bare Node", 10)
            yield process, port
        finally:
            process.kill()


async def _bare(process: subprocess.Popen[bytes], port: int, tenants: int, lines: float, seconds: int) -> _Seen:
    stdin = process.stdin
    assert stdin is not None
    taken = Delays()
    taken.counting = False

    async def write() -> None:
        number = 0
        async for line in paced(lines, seconds + 2 * _SETTLE, _RECORD):
            stdin.write(b"t%d %b" % (number % tenants, line))
            stdin.flush()
            number += 1

    targets = [f"/t{number}" for number in range(tenants)]
    async with _open(port, targets, "none", taken) as followers, beside(write()):
        await asyncio.sleep(_SETTLE)
        return await _watch([process.pid], followers, taken, lines, seconds)

"""Tenants that write without end: what a neighbour notices, and how large the collector gets."""

import asyncio
from dataclasses import dataclass, field

import uvloop

from bench import machine
from bench.client import Connection, post
from bench.following import Delays, Follower
from bench.options import Options
from bench.result import Figure, Result, milliseconds, percentile
from bench.running import Platform, beside, until
from bench.talkers import SETTINGS, SPEAKS, call, check_clock
from bench.talkers import flood as write_without_end

_PAUSE = 0.005
_SETTLE = 1.0
_WITHIN = 10.0
_QUIET, _FLOODS = "quiet", {"raw": "prints", "console": "calls `console`"}
_COMPUTES = "nothing"


@dataclass(frozen=True)
class _Times:
    """Seconds of the neighbour's calls, and of its lines on their way to a reader."""

    calls: list[float] = field(default_factory=list)
    lines: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        """Of the calls, in ms."""
        return milliseconds(percentile(self.calls, 0.99))


def flood(options: Options) -> Result:
    """A neighbour that is called every few milliseconds: alone, beside each flood, beside one that only computes."""
    rounds, seconds = options.pick(3, 1), options.pick(10, 3)
    states = {how: _Times() for how in (_QUIET, *_FLOODS, _COMPUTES)}
    with Platform(**SETTINGS) as platform:
        (pid,) = platform.pids("collector")
        uvloop.run(_bring_up(platform))
        before = machine.resident(pid)
        for _ in range(rounds):
            for how, times in states.items():
                uvloop.run(_neighbour(platform, how, times, seconds))
            options.say(", ".join(f"{how} {times.p99:.1f} ms" for how, times in states.items()))
        peak, pss = machine.peak(pid), machine.pss(pid)
        if platform.pids("collector") != [pid]:
            raise RuntimeError("the collector was started again meanwhile")
    quiet, computes = states[_QUIET], states[_COMPUTES]
    figures = [
        Figure(
            name=f"a tenant {does} without end: a neighbour's calls, p99 above quiet",
            value=states[how].p99 - quiet.p99,
            unit="ms",
            goal=10.0,
            reference=quiet.p99,
            beside="its p99 when quiet, whole",
            note=f"beside one that computes and writes nothing {computes.p99 - quiet.p99:.1f} ms above quiet;"
            f" its lines' p99 {milliseconds(percentile(states[how].lines, 0.99)):.0f} ms,"
            f" quiet {milliseconds(percentile(quiet.lines, 0.99)):.0f}; {len(states[how].calls):,} calls",
        )
        for how, does in _FLOODS.items()
    ]
    figures.append(
        Figure(
            name="the collector's memory, at most",
            value=peak / 1e6,
            unit="MB",
            goal=100.0,
            reference=before / 1e6,
            beside="before the floods",
            note=f"resident; PSS at the end {pss / 1e6:.0f} MB",
        )
    )
    return Result(figures=figures)


async def _bring_up(platform: Platform) -> None:
    """All sandboxes are there, and what runs for the first time has run."""
    await check_clock(platform, "neighbour")
    await call(platform, "/neighbour", SPEAKS)
    for how in (*_FLOODS, _COMPUTES):
        await write_without_end(platform, how, how=how, seconds=0.1)
    await asyncio.to_thread(platform.wait_pool)


async def _neighbour(platform: Platform, how: str, times: _Times, seconds: int) -> None:
    """Call the neighbour, and read what it writes, while a tenant does `how`."""
    taken = Delays()
    loud = () if how == _QUIET else (write_without_end(platform, how, how=how, seconds=seconds + 2 * _SETTLE),)
    async with Follower(platform.port, "/logs/tenant/neighbour", platform.key, taken.take) as follower, beside(*loud):
        await asyncio.sleep(_SETTLE)
        called = 0
        deadline = asyncio.get_running_loop().time() + seconds
        async with Connection(platform.port) as connection:
            while asyncio.get_running_loop().time() < deadline:
                answer = await connection.ask(post("/neighbour", platform.key, SPEAKS))
                if answer.status != 200:
                    raise RuntimeError(f"the neighbour got {answer.status} {answer.body[:300]!r}")
                times.calls.append(answer.seconds)
                called += 1
                await asyncio.sleep(_PAUSE)
        await until(lambda: len(taken.seconds) >= called, f"{called} lines of the neighbour", _WITHIN)
        follower.check()
    times.lines.extend(taken.seconds)

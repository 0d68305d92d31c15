"""What the collector uses for many lines a second, beside `cat` with as many."""

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvloop

from bench import machine
from bench.following import paced
from bench.options import Options
from bench.result import Figure, Result, median
from bench.running import Platform, beside
from bench.talkers import SETTINGS, say
from sandpost.bus.local import LocalReader

_TENANTS = 20
_LINES = 20_000
_SIZE = 100
_SETTLE = 2.0
_ENOUGH = 0.9
"""Of the lines that are asked for; with fewer nothing was measured."""


def collector(options: Options) -> Result:
    """20,000 lines a second of 20 tenants: raw ones, `console`'s, and `cat` of raw ones, in turns."""
    rounds, seconds = options.pick(3, 1), options.pick(10, 3)
    cores: dict[str, list[float]] = {"raw": [], "console": [], "cat": []}
    rates: dict[str, list[float]] = {"raw": [], "console": []}
    with Platform(**SETTINGS) as platform, tempfile.TemporaryDirectory(prefix="sandpost-bench-") as folder:
        uvloop.run(_bring_up(platform))
        for _ in range(rounds):
            for how, found in rates.items():
                spent, rate = uvloop.run(_collected(platform, how, seconds))
                cores[how].append(spent)
                found.append(rate)
            with _cats(Path(folder)) as (pids, fifos):
                cores["cat"].append(uvloop.run(_catenated(pids, fifos, seconds)))
            options.say(f"{rates['raw'][-1]:,.0f} and {rates['console'][-1]:,.0f} lines a second")
    return Result(
        figures=[
            Figure(
                name=f"collector at {_LINES:,} lines a second, {what}",
                value=median(cores[how]),
                unit="cores",
                goal=0.5,
                reference=median(cores["cat"]),
                beside=f"{_TENANTS} `cat` from FIFOs to files, raw lines",
                note=f"{median(rates[how]):,.0f} lines a second were kept, {_SIZE} bytes each; {rounds} runs",
            )
            for how, what in (("raw", "printed"), ("console", "`console`"))
        ]
    )


async def _bring_up(platform: Platform) -> None:
    for number in range(_TENANTS):
        await say(platform, f"many{number}", how="console", rate=100, seconds=0.1)
    await asyncio.to_thread(platform.wait_pool)


async def _collected(platform: Platform, how: str, seconds: int) -> tuple[float, float]:
    """Return the collector's cores, and the records that were kept a second."""
    (pid,) = platform.pids("collector")
    reader = LocalReader(platform.host.logs_dir)
    each = _LINES / _TENANTS

    async def kept() -> int:
        return sum([await reader.end(f"many{number}") for number in range(_TENANTS)])

    try:
        lasts = seconds + 2 * _SETTLE
        names = [f"many{number}" for number in range(_TENANTS)]
        async with beside(*(say(platform, name, how=how, rate=each, seconds=lasts, size=_SIZE) for name in names)):
            await asyncio.sleep(_SETTLE)
            before = await kept()
            spent, took = await _over(seconds, lambda: machine.cpu(pid))
            rate = (await kept() - before) / took
    finally:
        await reader.close()
    if rate < _ENOUGH * _LINES:
        raise RuntimeError(f"{rate:,.0f} lines a second came through, not {_LINES:,}: the machine is too busy")
    return spent / took, rate


async def _over(seconds: float, cpu: Callable[[], float]) -> tuple[float, float]:
    """Return the CPU seconds that are used from now on for so long, and how long it was."""
    began, before = time.monotonic(), cpu()
    await asyncio.sleep(seconds)
    return cpu() - before, time.monotonic() - began


@contextmanager
def _cats(folder: Path) -> Iterator[tuple[list[int], list[int]]]:
    """Run a `cat` for each of as many FIFOs; yield the pids, and the FIFOs' write ends."""
    pids: list[int] = []
    fifos: list[int] = []
    with ExitStack() as stack:
        for number in range(_TENANTS):
            path = folder / f"fifo{number}"
            os.mkfifo(path)
            stack.callback(path.unlink)
            # For reading too: else this would wait for the reader.
            fifos.append(os.open(path, os.O_RDWR))
            stack.callback(os.close, fifos[-1])
            with open(folder / f"file{number}", "wb") as file:
                process = stack.enter_context(subprocess.Popen(["cat", str(path)], stdout=file))
            stack.callback(process.kill)
            pids.append(process.pid)
        yield pids, fifos


async def _catenated(pids: list[int], fifos: list[int], seconds: int) -> float:
    """Return the cores that all the `cat` use."""

    async def write() -> None:
        number = 0
        async for line in paced(_LINES, seconds + 2 * _SETTLE, _SIZE):
            os.write(fifos[number % len(fifos)], line)
            number += 1

    async with beside(write()):
        await asyncio.sleep(_SETTLE)
        spent, took = await _over(seconds, lambda: sum(map(machine.cpu, pids)))
    return spent / took

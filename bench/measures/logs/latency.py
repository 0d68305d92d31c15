"""From a line's writing inside a sandbox to its reading by a client over HTTP, on both buses."""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from bench import kafka
from bench.following import Delays, Follower, delays, paced, printed
from bench.options import Options
from bench.result import Figure, Result, milliseconds, percentile
from bench.running import Platform, beside, until
from bench.talkers import SETTINGS, check_clock, say

_TENANT = "spoken"
_RATE = 100.0
_SIZE = 40
_WITHIN = 10.0
_PERCENTILES = ((0.50, 5.0), (0.99, 50.0))
_Round = Callable[[], Awaitable[list[float]]]


def latency(options: Options) -> Result:
    """100 lines a second; the platform and its reference in turns."""
    rounds, seconds = options.pick(3, 1), options.pick(10, 3)
    figures: list[Figure] = []
    with Platform(**SETTINGS) as platform, tempfile.TemporaryDirectory(prefix="sandpost-bench-") as folder:
        ours, theirs = uvloop.run(
            _in_turns(platform, lambda: _file(Path(folder, "lines"), seconds), seconds=seconds, rounds=rounds)
        )
    figures += _figures("local", ours, theirs, "`tail -f` of a file")
    options.say("local done")
    with kafka.cluster() as address, Platform(logs_bus="kafka", logs_kafka_brokers=address, **SETTINGS) as platform:
        ours, theirs = uvloop.run(
            _in_turns(platform, lambda: _bare_kafka(address, seconds), seconds=seconds, rounds=rounds)
        )
    figures += _figures("kafka", ours, theirs, "bare aiokafka, producer to consumer")
    return Result(figures=figures)


def _figures(bus: str, ours: list[float], theirs: list[float], beside: str) -> list[Figure]:
    return [
        Figure(
            name=f"line written inside to line read, {bus}, p{share * 100:.0f}",
            value=milliseconds(percentile(ours, share)),
            unit="ms",
            goal=goal,
            reference=milliseconds(percentile(theirs, share)),
            beside=beside,
            note=f"{len(ours):,} lines, {_RATE:.0f} a second; slowest {milliseconds(max(ours)):.0f} ms",
        )
        for share, goal in _PERCENTILES
    ]


async def _in_turns(
    platform: Platform, reference: _Round, *, seconds: int, rounds: int
) -> tuple[list[float], list[float]]:
    await check_clock(platform, _TENANT)
    ours: list[float] = []
    theirs: list[float] = []
    # Not measured: code that runs for the first time.
    await _through(platform, 1)
    for _ in range(rounds):
        theirs += await reference()
        ours += await _through(platform, seconds)
    return ours, theirs


async def _through(platform: Platform, seconds: int) -> list[float]:
    taken = Delays()
    async with Follower(platform.port, f"/logs/tenant/{_TENANT}", platform.key, taken.take) as follower:
        written = await say(platform, _TENANT, how="console", rate=_RATE, seconds=seconds, size=_SIZE)
        await until(lambda: len(taken.seconds) >= written, f"{written} lines", _WITHIN)
        follower.check()
    return taken.seconds


async def _file(path: Path, seconds: int) -> list[float]:
    taken = Delays()
    path.write_bytes(b"")
    begun = asyncio.Event()
    with open(path, "ab", buffering=0) as file:
        file.write(b"begin\n")

        def take(lines: bytes, now: int) -> None:
            begun.set()
            taken.take(lines, now)

        async with printed(("tail", "-n", "+1", "-f", str(path)), take):
            async with asyncio.timeout(_WITHIN):
                await begun.wait()
            # It watches the file once it has shown what was there.
            await asyncio.sleep(0.5)
            written = 0
            async for line in paced(_RATE, seconds, _SIZE):
                os.write(file.fileno(), line)
                written += 1
            await until(lambda: len(taken.seconds) >= written, f"{written} lines of tail", _WITHIN)
    return taken.seconds


async def _bare_kafka(address: str, seconds: int) -> list[float]:
    taken: list[float] = []
    async with kafka.bare(address) as bare:

        async def consume(count: int) -> None:
            for _ in range(count):
                line = await bare.next()
                taken.extend(delays(line, time.monotonic_ns()))

        # Not measured: the first one finds its way.
        await bare.say(b"begin\n")
        await bare.next()
        async with beside(consume(round(_RATE * seconds))):
            async for line in paced(_RATE, seconds, _SIZE):
                await bare.say(line)
    return taken

"""The first record of a tenant's last 10,000 among 10 million, over HTTP, on both buses."""

import asyncio
import os
import random
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvloop

from bench import kafka
from bench.following import Follower
from bench.options import Options
from bench.result import Figure, Result, milliseconds, percentile
from bench.running import Platform
from sandpost.bus.contract import Batch, Writer
from sandpost.bus.kafka import KafkaSettings, KafkaWriter
from sandpost.bus.local import Limits, LocalWriter

_TENANTS = 100
_BATCH = 100
_FILL_WITHIN = 300.0
_ALL = Limits(stream_bytes=8 << 30, total_bytes=8 << 30)
_NUMBER = re.compile(rb'"msg":"n (\d+) ')
_PAUSE = 0.05


def history(options: Options) -> Result:
    """100,000 records each of 100 tenants, in turns as they were written; then the last 10,000 of one after another."""
    each, asked = options.pick(100_000, 2_000), options.pick(200, 20)
    tail = each // 10
    figures: list[Figure] = []

    def fill(state_dir: Path) -> None:
        _told(options, lambda: LocalWriter(str(state_dir / "logs"), limits=_ALL), each)
        # Else the disk would be busy with it for a while.
        os.sync()

    with (
        Platform(fill, pool_size="1") as platform,
        tempfile.NamedTemporaryFile(prefix="sandpost-bench-") as file,
    ):
        for lines in _lines("t0", each):
            file.write(lines)
        file.flush()
        ours = uvloop.run(_firsts(platform, asked, each, tail))
        theirs = [_tail(file.name, each, tail) for _ in range(asked)]
    figures += _figures("local", ours, theirs, each, f"`tail -n {tail}` of a file of this tenant alone")
    with kafka.cluster() as address:
        _told(options, lambda: KafkaWriter(KafkaSettings(servers=address), "bench"), each)
        with Platform(pool_size="1", logs_bus="kafka", logs_kafka_brokers=address) as platform:
            ours = uvloop.run(_firsts(platform, asked, each, tail))
        theirs = uvloop.run(_sought(address, asked, each, tail))
    figures += _figures("kafka", ours, theirs, each, "bare aiokafka, a topic of this tenant alone, its offset known")
    return Result(figures=figures)


def _figures(bus: str, ours: list[float], theirs: list[float], each: int, beside: str) -> list[Figure]:
    return [
        Figure(
            name=f"first of the last {each // 10:,} of {each * _TENANTS:,} records, {bus}, p{share * 100:.0f}",
            value=milliseconds(percentile(ours, share)),
            unit="ms",
            goal=20.0,
            reference=milliseconds(percentile(theirs, share)),
            beside=beside,
            note=f"{len(ours)} times, any of {_TENANTS} tenants; slowest {milliseconds(max(ours)):.0f} ms",
        )
        for share in (0.50, 0.99)
    ]


def _told(options: Options, make: Callable[[], Writer], each: int) -> None:
    began = time.monotonic()
    uvloop.run(_fill(make, each))
    took = time.monotonic() - began
    options.say(f"{each * _TENANTS:,} records written in {took:.0f} s")


async def _fill(make: Callable[[], Writer], each: int) -> None:
    """Write so many records of each tenant, one batch after another's; `TimeoutError` if that takes too long."""
    streams = [f"t{number}" for number in range(_TENANTS)]
    kept: dict[str, int] = {}
    writer = make()
    async with asyncio.timeout(_FILL_WITHIN):
        await writer.open()
        try:
            parts = zip(*(_lines(stream, each) for stream in streams), strict=True)
            for end, lines in enumerate(parts, 1):
                for stream, some in zip(streams, lines, strict=True):
                    batch = Batch(
                        stream=stream, source=f"{stream}.1", end=end, lines=some, count=_BATCH, time=time.time()
                    )
                    while writer.room(stream) < len(some):
                        kept |= await writer.kept()
                    writer.append([batch])
            while any(kept.get(f"{stream}.1", 0) < each // _BATCH for stream in streams):
                kept |= await writer.kept()
        finally:
            await writer.close()


def _lines(tenant: str, each: int) -> Iterator[bytes]:
    """Yield numbered records as a sandbox's are, so many at once as a batch has."""
    record = (
        b'{"name":"sandpost","hostname":"bench","pid":1,"level":30,"time":"2026-01-01T00:00:00.000Z",'
        b'"msg":"n %%d of the lines of a program that says what it does","v":0,"container":"%b","sandbox":true,'
        b'"sandbox_id":"0123456789ab"}\n' % tenant.encode()
    )
    many = record * _BATCH
    for first in range(0, each, _BATCH):
        yield many % tuple(range(first, first + _BATCH))


def _check(line: bytes, wanted: int) -> None:
    """Raise `RuntimeError` unless this is the record with that number."""
    found = _NUMBER.search(line)
    if found is None or int(found[1]) != wanted:
        raise RuntimeError(f"not record {wanted}: {line[:300]!r}")


async def _firsts(platform: Platform, asked: int, each: int, tail: int) -> list[float]:
    """Return the seconds from connecting to the first record, of any tenants."""
    drawn = random.Random(each).choices(range(_TENANTS), k=asked)
    # Not measured: who asks for the first time.
    await _first(platform, f"t{drawn[-1]}", each, tail)
    return [await _first(platform, f"t{number}", each, tail) for number in drawn]


async def _first(platform: Platform, tenant: str, each: int, tail: int) -> float:
    first: asyncio.Future[tuple[bytes, int]] = asyncio.get_running_loop().create_future()

    def take(lines: bytes, now: int) -> None:
        if not first.done():
            first.set_result((lines, now))

    await asyncio.sleep(_PAUSE)
    began = time.monotonic_ns()
    async with (
        Follower(platform.port, f"/logs/tenant/{tenant}?tail={tail}", platform.key, take),
        asyncio.timeout(30),
    ):
        lines, now = await first
    _check(lines, each - tail)
    return (now - began) / 1e9


def _tail(path: str, each: int, tail: int) -> float:
    """Return the seconds from starting `tail` to its first line."""
    time.sleep(_PAUSE)
    began = time.perf_counter()
    with subprocess.Popen(["tail", "-n", str(tail), path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        took = time.perf_counter() - began
        process.kill()
    _check(line, each - tail)
    return took


async def _sought(address: str, asked: int, each: int, tail: int) -> list[float]:
    """Return the seconds from seeking to the first line."""
    taken: list[float] = []
    async with kafka.bare(address) as bare:
        for lines in _lines("t0", each):
            for line in lines.splitlines():
                await bare.say(line)
        await bare.flush()
        for _ in range(asked):
            await asyncio.sleep(_PAUSE)
            began = time.perf_counter()
            bare.go_to(each - tail)
            line = await bare.next()
            taken.append(time.perf_counter() - began)
            _check(line, each - tail)
    return taken

"""What the local bus costs: appending, the way to a reader in another process, and the way to a history's end.

    python -m bench.bus [--json] [--folder FOLDER] [--quick]

Records of 200 bytes. Files are made below FOLDER (default: where temporary files go), 2.4 GB of them for the history.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.result import median, percentile
from sandpost.bus.contract import Batch, Record, Start
from sandpost.bus.local import Limits, LocalReader, LocalWriter

_SIZE = 200
_BATCHES = (1, 10, 100)
_RATE = 20_000
_TURN = 0.01
"""Seconds between appends at a steady rate."""
_STREAMS = 20
_LINES_A_SECOND = 1000
_ALL = Limits(stream_bytes=8 << 30, total_bytes=8 << 30)

_FOLLOW = """
import asyncio, sys, time
from sandpost.bus.contract import Start
from sandpost.bus.local import LocalReader
async def main(folder, count):
    taken = []
    pieces = LocalReader(folder).follow("acme", Start())
    print("ready", flush=True)
    async for items in pieces:
        now = time.monotonic_ns()
        taken += [now - int(item.line[6:26]) for item in items]
        if len(taken) >= count:
            break
    await pieces.aclose()
    print(*taken)
asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def _line(number: int) -> bytes:
    return (b'{"at":%020d,"msg":"' % number).ljust(_SIZE - 3, b"x") + b'"}\n'


def _batch(stream: str, end: int, count: int) -> Batch:
    return Batch(stream=stream, source="s.1", end=end, lines=_line(end) * count, count=count, time=time.time())


async def _write(folder: str, count: int, each: int) -> tuple[float, float]:
    """Append `count` records as fast as they are taken; return seconds and seconds of CPU."""
    writer = LocalWriter(folder, limits=_ALL)
    await writer.open()
    lines, at = _line(0) * each, time.time()
    began, cpu, done = time.perf_counter(), time.process_time(), 0
    sent = 0
    while done < count:
        batches = []
        room = writer.room("acme")
        while sent < count and room >= len(lines):
            sent, room = sent + each, room - len(lines)
            batches.append(Batch(stream="acme", source="s.1", end=sent, lines=lines, count=each, time=at))
        writer.append(batches)
        done = (await writer.kept())["s.1"]
    took = time.perf_counter() - began, time.process_time() - cpu
    await writer.close()
    return took


async def _steadily(folder: str, each: int, streams: int, seconds: float) -> float:
    """Append `_RATE` records a second; return the share of a core."""
    writer = LocalWriter(folder, limits=_ALL)
    await writer.open()
    turns = round(seconds / _TURN)
    a_turn = round(_RATE * _TURN / each)
    ready = [
        [_batch(f"s{(turn * a_turn + one) % streams}", turn + 1, each) for one in range(a_turn)]
        for turn in range(turns)
    ]
    began, cpu = time.perf_counter(), time.process_time()
    for turn, batches in enumerate(ready):
        await asyncio.sleep(max(0, began + turn * _TURN - time.perf_counter()))
        writer.append(batches)
        await writer.kept()
    share = (time.process_time() - cpu) / (time.perf_counter() - began)
    await writer.close()
    return share


async def _delays(folder: str, seconds: float) -> list[float]:
    """Append a line now and then; return the seconds until the reader has each."""
    writer = LocalWriter(folder, limits=_ALL)
    await writer.open()
    writer.append([_batch("acme", 1, 1)])
    await writer.kept()
    count = round(_LINES_A_SECOND * seconds)
    reader = subprocess.Popen([sys.executable, "-c", _FOLLOW, folder, str(count)], stdout=subprocess.PIPE)
    try:
        assert reader.stdout is not None
        reader.stdout.readline()
        await asyncio.sleep(0.5)
        began = time.perf_counter()
        for number in range(count):
            await asyncio.sleep(max(0, began + number / _LINES_A_SECOND - time.perf_counter()))
            now = time.monotonic_ns()
            writer.append(
                [Batch(stream="acme", source="", end=0, lines=_line(now), count=1, time=time.time())]
            )  # fmt: skip
        await writer.close()
        return [int(word) / 1e9 for word in (await asyncio.to_thread(reader.stdout.read)).split()]
    finally:
        reader.kill()
        reader.communicate()


async def _first(reader: LocalReader, start: Start) -> float:
    began = time.perf_counter()
    pieces = reader.follow("acme", start)
    items = await anext(pieces)
    took = time.perf_counter() - began
    await pieces.aclose()
    assert isinstance(items[0], Record)
    return took


def _forget(folder: str) -> None:
    """Let the kernel forget what it holds of the files."""
    os.sync()
    for path in Path(folder).rglob("*.*"):
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


async def _history(folder: str, count: int, rounds: int) -> dict[str, list[float]]:
    await _write(folder, count, 100)
    reader = LocalReader(folder)
    last = count - count // 1000
    found: dict[str, list[float]] = {"tail": [], "offset": [], "since": [], "cold": []}
    for _ in range(rounds):
        found["tail"].append(await _first(reader, Start(tail=count // 1000)))
        found["offset"].append(await _first(reader, Start(offset=last)))
        found["since"].append(await _first(reader, Start(since=0)))
    for _ in range(max(3, rounds // 10)):
        _forget(folder)
        found["cold"].append(await _first(reader, Start(tail=count // 1000)))
    await reader.close()
    return found


def measure(below: str | None, *, quick: bool) -> dict[str, float]:
    """Return all figures: records a second, shares of a core, seconds."""
    found: dict[str, float] = {}
    scale = 50 if quick else 1

    def folder() -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(dir=below)

    for each in _BATCHES:
        count = min(300_000, 20_000 * each) // scale // each * each
        with folder() as place:
            seconds, cpu = asyncio.run(_write(place, count, each))
        found[f"rate_{each}"] = count / seconds
        found[f"cpu_{each}"] = cpu / count
        for streams in (1, _STREAMS):
            with folder() as place:
                found[f"share_{each}_{streams}"] = asyncio.run(_steadily(place, each, streams, 5 / scale))
    with folder() as place:
        delays = asyncio.run(_delays(place, 10 / scale))
    found |= {"delay": median(delays), "delay_p99": percentile(delays, 0.99)}
    with folder() as place:
        history = asyncio.run(_history(place, 10_000_000 // scale, max(3, 100 // scale)))
    for name, samples in history.items():
        found |= {name: median(samples), f"{name}_max": max(samples)}
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What the local bus costs.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="small counts: shows that it works, measures nothing")
    parser.add_argument("--folder", help="where files are made")
    options = parser.parse_args()
    found = measure(options.folder, quick=options.quick)
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for each in _BATCHES:
        print(
            f"batches of {each:>3}  {found[f'rate_{each}']:>10,.0f} records a second,"
            f" {found[f'cpu_{each}'] * 1e6:.2f} us of CPU each; {_RATE:,} a second take"
            f" {found[f'share_{each}_1']:.3f} of a core, in {_STREAMS} streams {found[f'share_{each}_{_STREAMS}']:.3f}"
        )
    print(f"appended to read {found['delay'] * 1e3:>8.2f} ms p50, {found['delay_p99'] * 1e3:.2f} ms p99")
    for name, what in (
        ("tail", "last 10,000 of 10 million"),
        ("offset", "the same by offset"),
        ("since", "all, by time"),
        ("cold", "last 10,000, files not in memory"),
    ):
        print(f"first of {what:<34} {found[name] * 1e3:>8.2f} ms p50, {found[f'{name}_max'] * 1e3:.2f} ms at most")


if __name__ == "__main__":
    main()

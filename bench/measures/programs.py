"""Programs that a warm sandbox has not seen before."""

import asyncio
import time

import uvloop

from bench.client import BrokenAnswer, Connection, post
from bench.options import Options
from bench.result import Figure, Result, median, milliseconds
from bench.running import PROGRAM, Platform


def _program(number: int) -> bytes:
    # Some hundred bytes, as small real ones have, and never the same twice.
    return (
        f"// program {number}\n"
        "const greet = (name) => `Hello, ${name}!`\n"
        f"const number = {number}\n"
        "return function (context, cb) {\n"
        "  const list = [1, 2, 3].map((n) => n * number)\n"
        "  cb(null, { greeting: greet(context.data.name || 'world'), list, number })\n"
        "}\n"
    ).encode()


def unseen(options: Options) -> Result:
    """Known and never-seen programs in turns on one connection; then a great many different ones on eight."""
    turns, many, at_once = options.pick(1000, 100), options.pick(20_000, 500), 8

    async def in_turns(platform: Platform) -> tuple[list[float], list[float]]:
        known, fresh = [], []
        async with Connection(platform.port) as connection:
            for number in range(turns + 50):
                one = await connection.ask(post("/unseen", platform.key, PROGRAM))
                other = await connection.ask(post("/unseen", platform.key, _program(number)))
                if one.status != 200 or other.status != 200:
                    raise RuntimeError(f"a call failed: {one} {other}")
                if number >= 50:
                    known.append(one.seconds)
                    fresh.append(other.seconds)
        return known, fresh

    async def all_different(platform: Platform) -> tuple[int, float]:
        numbers = iter(range(1_000_000, 1_000_000 + many))
        failed = 0

        async def client() -> None:
            nonlocal failed
            for number in numbers:
                try:
                    async with Connection(platform.port) as connection:
                        answer = await connection.ask(post("/unseen", platform.key, _program(number)))
                        while answer.status == 200 and (number := next(numbers, -1)) >= 0:
                            answer = await connection.ask(post("/unseen", platform.key, _program(number)))
                        if answer.status != 200:
                            failed += 1
                            options.say(f"{answer.status} {answer.body[:200]!r}")
                except (BrokenAnswer, OSError) as error:
                    failed += 1
                    options.say(str(error))

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(client())
        return failed, time.perf_counter() - began

    with Platform() as platform:
        known, fresh = uvloop.run(in_turns(platform))
        failed, seconds = uvloop.run(all_different(platform))
        ends = platform.status().ends
        fatal = platform.status().fatal_ends
    told = ", ".join(f"{count} {word}" for word, count in sorted(ends.items()) if count) or "none"
    return Result(
        figures=[
            Figure(
                name="a never-seen program against a known one, warm, p50",
                value=milliseconds(median(fresh) - median(known)),
                unit="ms more",
                goal=2.0,
                reference=milliseconds(median(known)),
                beside="the known one",
                note=f"{turns} of each, in turns",
            ),
            Figure(
                name=f"{many:,} different programs to one tenant: failed calls and fatal ends",
                value=failed + fatal,
                unit="",
                goal=0,
                note=f"{many / seconds:.0f} a second; ends: {told}",
            ),
        ]
    )

"""Programs in Python: the first answer of a sandbox, calls of one that runs, and what an idle one holds."""

import time

import uvloop

from bench import machine, wrk
from bench.measures.first import timed
from bench.options import Options
from bench.result import Figure, Result, median, milliseconds, percentile
from bench.running import PROGRAM, BareNode, BareUvicorn, Platform

_HEAD = b"# sandpost: language=python\n"
DEF = _HEAD + b'def main(context):\n    return "Hello, world!"'
ASYNC_DEF = _HEAD + b'async def main(context):\n    return "Hello, world!"'
_SETTLE = 15.0
_POOL = 60.0


def first(options: Options) -> Result:
    """New tenants one by one: from the pool once demand has made one, with an empty pool, and as a second runtime."""
    count = options.pick(100, 10)
    pooled: list[float] = []
    beside: list[float] = []
    missed = 0
    with Platform(limits_idle="30s") as platform:
        for number in range(count + 5):
            # A pool of Python is learned from demand: the first tenants make it.
            deadline = time.monotonic() + _POOL
            while number > 4 and not _ready(platform) and time.monotonic() < deadline:
                time.sleep(0.02)
            ready = _ready(platform)
            time.sleep(0.05)
            seconds = uvloop.run(timed(platform, f"first{number}", DEF))
            if number > 4:
                missed += not ready
                pooled.append(seconds)
                platform.wait_pool()
                beside.append(uvloop.run(timed(platform, f"beside{number}", PROGRAM)))
    empty: list[float] = []
    second: list[float] = []
    node: list[float] = []
    with Platform(pool_size="0", limits_idle="30s") as platform:
        for number in range(options.pick(50, 5)):
            _use_up(platform, number)
            empty.append(uvloop.run(timed(platform, f"empty{number}", DEF)))
            _use_up(platform, number)
            node.append(uvloop.run(timed(platform, f"second{number}", PROGRAM)))
            second.append(uvloop.run(timed(platform, f"second{number}", DEF)))
    note = f"{len(pooled)} tenants, one at a time; {missed} found the pool empty"
    return Result(
        figures=[
            *(
                Figure(
                    name=f"Python: first answer of a new tenant, from the pool, p{share:.0f}",
                    value=milliseconds(percentile(pooled, share / 100)),
                    unit="ms",
                    goal=goal,
                    reference=milliseconds(percentile(beside, share / 100)),
                    beside="a new tenant's JavaScript",
                    note=note,
                )
                for share, goal in ((50, 5.0), (99, 20.0))
            ),
            *(
                Figure(
                    name=f"Python: first answer, {what}, p50",
                    value=milliseconds(median(found)),
                    unit="ms",
                    goal=130.0,
                    reference=milliseconds(median(node)),
                    beside="a new tenant's JavaScript, pool empty",
                    note=f"{len(found)} tenants; p99 {milliseconds(percentile(found, 0.99)):.0f} ms",
                )
                for what, found in (("pool empty", empty), ("as a tenant's second runtime", second))
            ),
        ]
    )


def _ready(platform: Platform) -> bool:
    found = platform.api("GET", "/api/status")["controller"]["runtimes"].get("python", {})
    return bool(found.get("pool"))


def _use_up(platform: Platform, number: int) -> None:
    """Pools may grow by the rate of arrivals: what they made is used up, unmeasured."""
    while platform.status().pool or platform.status().starting:
        for language, program in (("python", DEF), ("javascript", PROGRAM)):
            uvloop.run(timed(platform, f"used-{language}{number}-{platform.status().starts}", program))


def warm(options: Options) -> Result:
    """32 connections, as many calls as are answered: `async def`, `def`, bare Node and bare uvicorn in turns."""
    rounds, seconds = options.pick(5, 2), options.pick(5, 2)
    rates: dict[str, list[float]] = {}
    with Platform() as platform, BareNode() as node, BareUvicorn() as uvicorn:
        ours = {"async def": ASYNC_DEF, "def": DEF, "JavaScript": PROGRAM}
        for turn in range(rounds + 1):
            length = seconds if turn else 2
            runs = {
                "bare Node": wrk.run(node.port, "/", PROGRAM, "none", connections=32, seconds=length),
                "bare uvicorn": wrk.run(uvicorn.port, "/", PROGRAM, "none", connections=32, seconds=length),
            }
            for name, program in ours.items():
                tenant = f"/warm-{name.replace(' ', '-').lower()}"
                runs[name] = wrk.run(platform.port, tenant, program, platform.key, connections=32, seconds=length)
            for name, run in runs.items():
                if run.failed:
                    raise RuntimeError(f"{run.failed} of {run.requests} calls of {name} failed")
                # The first turn warms.
                if turn:
                    rates.setdefault(name, []).append(run.rate)
    rate = {name: median(found) for name, found in rates.items()}
    goal = min(0.30 * rate["bare Node"], 0.8 * rate["bare uvicorn"])
    others = ", ".join(f"{name} {rate[name]:.0f}/s" for name in ("bare uvicorn", "JavaScript"))
    note = f"median of {rounds} runs of {seconds} s; {others}"
    return Result(
        figures=[
            Figure(
                name=f"Python: warm calls of `{name}` a second, 32 connections",
                value=rate[name],
                unit="/s",
                goal=goal * share,
                better="more",
                reference=rate["bare Node"],
                beside="bare Node",
                note=note,
            )
            for name, share in (("async def", 1.0), ("def", 0.5))
        ]
    )


def idle(options: Options) -> Result:
    """Tenants whose program in Python was answered once, and then rests."""
    count = options.pick(100, 20)
    sizes: dict[str, float] = {}
    for name, program in (("python", DEF), ("javascript", PROGRAM)):
        with Platform(pool_size="0", limits_idle="1h") as platform:
            # One, so that what all sandboxes share is in memory already.
            uvloop.run(timed(platform, "before", program))
            time.sleep(_SETTLE)
            before = machine.available()
            for number in range(count):
                uvloop.run(timed(platform, f"idle{number}", program))
            time.sleep(_SETTLE)
            # What the pool learned to keep meanwhile is of the same kind.
            status = platform.api("GET", "/api/status")["controller"]["runtimes"].get(name, {})
            held = count + int(status.get("pool", 0))
            sizes[name] = (before - machine.available()) / held
    return Result(
        figures=[
            Figure(
                name=f"Python: idle sandbox, by MemAvailable over {count}",
                value=sizes["python"] / 1e6,
                unit="MB",
                goal=16.0,
                reference=sizes["javascript"] / 1e6,
                beside="one of JavaScript",
                note="whatever else runs on the machine is in it",
            )
        ]
    )

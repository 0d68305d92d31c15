"""C# by Edge.js: first calls, those of a known source in the next sandbox, and warm calls beside JavaScript."""

import time

import uvloop

from bench import wrk
from bench.client import ask_once, post
from bench.measures.first import timed
from bench.options import Options
from bench.result import Figure, Result, median, milliseconds, percentile
from bench.running import Platform

PLAIN = b"return function (context, cb) { cb(null, 'Hello, world!') }"
EDGE = b"""return function (context, cb) {
  require('edge').func(function () {/*
    async (dynamic data) => { return "Hello, world!"; }
  */})(context.data, cb);
}"""
WHOLE = b'// sandpost: language=csharp\nasync (dynamic context) => "Hello, world!"'
SWITCH = b"process.env.EDGE_USE_CORECLR = '1';\n"
_END = b"return cb => process.exit(0)"
_FETCHED = 0.5
"""Seconds within which a proxy has fetched what was compiled."""


async def _ended(platform: Platform, tenant: str) -> None:
    await ask_once(platform.port, post(f"/{tenant}", platform.key, _END))


def csharp(options: Options) -> Result:
    """New tenants from a full pool, their next sandboxes, and warm calls."""
    warm = {"of an inline function": EDGE, "of a whole program": WHOLE}
    return _measured(options, "C#", EDGE, warm)


def coreclr(options: Options) -> Result:
    """The same on CoreCLR, which programs ask for that are in JavaScript."""
    return _measured(
        options, "C# on CoreCLR", SWITCH + EDGE, {"of an inline function": SWITCH + EDGE}, image_coreclr="true"
    )


def _measured(options: Options, name: str, edge: bytes, warm: dict[str, bytes], **settings: str) -> Result:
    count = options.pick(50, 5)
    plain: list[float] = []
    first: list[float] = []
    known: list[float] = []
    rounds, seconds = options.pick(5, 2), options.pick(3, 2)
    rates: dict[bytes, list[float]] = {program: [] for program in (PLAIN, *warm.values())}
    with Platform(limits_idle="30s", **settings) as platform:
        for number in range(count):
            platform.wait_pool()
            plain.append(uvloop.run(timed(platform, f"plain{number}", PLAIN)))
            platform.wait_pool()
            first.append(uvloop.run(timed(platform, f"edge{number}", edge)))
            time.sleep(_FETCHED)
            uvloop.run(_ended(platform, f"edge{number}"))
            platform.wait_pool()
            known.append(uvloop.run(timed(platform, f"edge{number}", edge)))
        for turn in range(rounds + 1):
            for number, (program, seen) in enumerate(rates.items()):
                run = wrk.run(platform.port, f"/warm{number}", program, platform.key, connections=32, seconds=seconds)
                if run.failed:
                    raise RuntimeError(f"{run.failed} of {run.requests} calls failed")
                if turn:
                    seen.append(run.rate)
    beside = milliseconds(median(plain))
    return Result(
        figures=[
            *(
                Figure(
                    name=f"{name}: {what}, p50",
                    value=milliseconds(median(found)),
                    unit="ms",
                    goal=goal,
                    reference=beside,
                    beside="JavaScript's first call",
                    note=f"{count} tenants; p99 {milliseconds(percentile(found, 0.99)):.0f} ms",
                )
                for what, found, goal in (
                    ("first call of a sandbox", first, 1000.0),
                    ("known source in a new sandbox", known, 300.0),
                )
            ),
            *(
                Figure(
                    name=f"{name}: warm calls {what}, of JavaScript's",
                    value=median(rates[program]) / median(rates[PLAIN]),
                    unit="of JavaScript",
                    goal=0.4,
                    better="more",
                    note=f"median of {rounds} runs of {seconds} s",
                )
                for what, program in warm.items()
            ),
        ]
    )

"""TypeScript beside JavaScript: the first call of a sandbox, and those that follow."""

import uvloop

from bench import wrk
from bench.measures.first import timed
from bench.options import Options
from bench.result import Figure, Result, median, milliseconds, percentile
from bench.running import PROGRAM, Platform

TYPED = b"// sandpost: language=typescript\nreturn (cb: (e: unknown, v: string) => void) => cb(null, 'Hello, world!')"


def typescript(options: Options) -> Result:
    """First calls of new tenants from a full pool, JavaScript and TypeScript in turns; then warm calls of both."""
    count = options.pick(100, 10)
    times: dict[bytes, list[float]] = {PROGRAM: [], TYPED: []}
    later: list[float] = []
    rounds, seconds = options.pick(5, 2), options.pick(3, 2)
    rates: dict[bytes, list[float]] = {PROGRAM: [], TYPED: []}
    with Platform(limits_idle="30s") as platform:
        for number in range(count):
            for program, found in times.items():
                platform.wait_pool()
                tenant = f"first{number}-{len(program)}"
                found.append(uvloop.run(timed(platform, tenant, program)))
            # A second program of a sandbox that has the compiler already.
            later.append(uvloop.run(timed(platform, tenant, TYPED + b" // another")))
        for turn in range(rounds + 1):
            for program, seen in rates.items():
                run = wrk.run(
                    platform.port, f"/warm{len(program)}", program, platform.key, connections=32, seconds=seconds
                )
                if run.failed:
                    raise RuntimeError(f"{run.failed} of {run.requests} calls failed")
                if turn:
                    seen.append(run.rate)
    plain, typed = (milliseconds(median(times[program])) for program in (PROGRAM, TYPED))
    return Result(
        figures=[
            Figure(
                name="TypeScript: first call of a sandbox, above JavaScript's, p50",
                value=typed - plain,
                unit="ms",
                goal=15.0,
                reference=plain,
                beside="JavaScript's first call",
                note=f"{count} tenants; p99 {milliseconds(percentile(times[TYPED], 0.99)):.0f} ms; "
                f"the next program {milliseconds(median(later)):.1f} ms",
            ),
            Figure(
                name="TypeScript: warm calls, of JavaScript's",
                value=median(rates[TYPED]) / median(rates[PROGRAM]),
                unit="of JavaScript",
                goal=0.97,
                better="more",
                note=f"median of {rounds} runs of {seconds} s",
            ),
        ]
    )

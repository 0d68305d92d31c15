"""What records cost the main road: warm calls with the platform's records, and with a line a call, beside none."""

from bench import wrk
from bench.options import Options
from bench.result import Figure, Result, median, milliseconds
from bench.running import PROGRAM, Platform
from sandpost.bus.local_now import read_now

_TALKS = b'return function (cb) { console.log("hello"); cb(null, "Hello, world!") }'
_LAST = 100_000
_CONNECTIONS = 32


def calls(options: Options) -> Result:
    """32 connections, as many calls as are answered; two installations, three ways in turns."""
    rounds, seconds = options.pick(7, 2), options.pick(5, 2)
    runs: dict[str, list[wrk.Run]] = {"off": [], "silent": [], "talks": []}
    # All is kept: what is dropped beyond a rate would cost less.
    with Platform(limits_output="0") as on, Platform(limits_output="0", logs_requests="0") as off:
        ways = {"off": (off, PROGRAM), "silent": (on, PROGRAM), "talks": (on, _TALKS)}
        warming = {name: _run(platform, name, program, 2) for name, (platform, program) in ways.items()}
        for _ in range(rounds):
            for name, (platform, program) in ways.items():
                runs[name].append(_run(platform, name, program, seconds))
        written = sum(run.requests for run in (warming["talks"], *runs["talks"]))
        _check(off, "off", set())
        _check(on, "silent", {"calls"})
        kept = _check(on, "talks", {"calls", "lines"})
    options.say(f"{kept:,} records were kept of a tenant with a line a call, {written:,} lines written")
    figures = []
    for name, what, goal in (("silent", "with the platform's records", 0.9), ("talks", "with a line a call too", 0.8)):
        rate, without = (median([run.rate for run in runs[one]]) for one in (name, "off"))
        figures += [
            Figure(
                name=f"warm calls against logs off, {_CONNECTIONS} connections, {what}",
                # Neighbours in time are compared: so what else the machine does meanwhile is in both.
                value=median([one.rate / other.rate for one, other in zip(runs[name], runs["off"], strict=True)]),
                unit="of logs off",
                goal=goal,
                better="more",
                note=f"median of {rounds} pairs of {seconds} s",
            ),
            Figure(
                name=f"warm calls a second, {what}",
                value=rate,
                unit="/s",
                better="more",
                reference=without,
                beside="`logs.requests = 0`, a silent program",
                note=f"p99 {milliseconds(median([run.p99 for run in runs[name]])):.1f} ms,"
                f" without {milliseconds(median([run.p99 for run in runs['off']])):.1f}",
            ),
        ]
    return Result(figures=figures)


def _run(platform: Platform, tenant: str, program: bytes, seconds: int) -> wrk.Run:
    run = wrk.run(platform.port, f"/{tenant}", program, platform.key, connections=_CONNECTIONS, seconds=seconds)
    if run.failed:
        raise RuntimeError(f"{run.failed} of {run.requests} calls failed")
    return run


def _check(platform: Platform, tenant: str, expected: set[str]) -> int:
    """Return how many records were kept of a tenant; `RuntimeError` unless its last ones are of the expected kinds."""
    kinds, kept = set(), 0
    for record in read_now(platform.host.logs_dir, tenant, tail=_LAST):
        kept = record.offset + 1
        if b'"sandbox":true' in record.line:
            kinds.add("lines")
        elif b" webtask request" in record.line:
            kinds.add("calls")
    if kinds != expected:
        raise RuntimeError(f"{tenant}: written were {sorted(kinds)}, to be written {sorted(expected)}")
    return kept

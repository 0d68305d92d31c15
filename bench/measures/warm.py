"""Calls of a tenant whose sandbox runs, beside the same calls to a bare Node server in interleaved runs."""

from bench import wrk
from bench.options import Options
from bench.result import Curve, Figure, Point, Result, median, milliseconds
from bench.running import PROGRAM, BareNode, Platform


def pairs(
    platform: Platform, bare: BareNode, tenant: str, *, connections: int, rounds: int, seconds: int
) -> tuple[list[wrk.Run], list[wrk.Run]]:
    """Run wrk against both in turns; return the platform's runs and the bare server's. A failed call raises."""
    ours, theirs = [], []
    for _ in range(rounds):
        theirs.append(wrk.run(bare.port, "/", PROGRAM, "none", connections=connections, seconds=seconds))
        run = wrk.run(platform.port, f"/{tenant}", PROGRAM, platform.key, connections=connections, seconds=seconds)
        if run.failed:
            raise RuntimeError(f"{run.failed} of {run.requests} warm calls failed")
        ours.append(run)
    return ours, theirs


def throughput(options: Options) -> Result:
    """32 connections, as many calls as are answered."""
    rounds, seconds = options.pick(5, 2), options.pick(5, 2)
    with Platform() as platform, BareNode() as bare:
        pairs(platform, bare, "warm", connections=32, rounds=1, seconds=2)
        ours, theirs = pairs(platform, bare, "warm", connections=32, rounds=rounds, seconds=seconds)
    rate, bare_rate = median([run.rate for run in ours]), median([run.rate for run in theirs])
    note = f"median of {rounds} runs of {seconds} s"
    return Result(
        figures=[
            Figure(
                name="warm calls against bare Node, 32 connections",
                value=rate / bare_rate,
                unit="of bare",
                goal=0.40,
                better="more",
                note=note,
            ),
            Figure(
                name="warm calls a second, 32 connections",
                value=rate,
                unit="/s",
                better="more",
                reference=bare_rate,
                beside="bare Node",
                note=f"{note}; p99 {milliseconds(median([run.p99 for run in ours])):.1f} ms",
            ),
        ]
    )


def added(options: Options) -> Result:
    """One connection: the platform's percentiles less the bare server's."""
    rounds, seconds = options.pick(5, 2), options.pick(5, 2)
    with Platform() as platform, BareNode() as bare:
        pairs(platform, bare, "one", connections=1, rounds=1, seconds=2)
        ours, theirs = pairs(platform, bare, "one", connections=1, rounds=rounds, seconds=seconds)
    figures = []
    for name, goal in (("p50", 0.1), ("p99", 1.0)):
        mine = median([milliseconds(getattr(run, name)) for run in ours])
        reference = median([milliseconds(getattr(run, name)) for run in theirs])
        figures.append(
            Figure(
                name=f"added at one connection, {name}",
                value=mine - reference,
                unit="ms",
                goal=goal,
                reference=reference,
                beside=f"bare Node's {name}",
                note=f"a call takes {mine:.3f} ms",
            )
        )
    return Result(figures=figures)


def load(options: Options) -> Result:
    """From one connection to many: how latency grows with load."""
    steps = (1, 2, 4, 8, 16, 32, 64, 96) if not options.quick else (1, 8, 32)
    ours, theirs = [], []
    with Platform() as platform, BareNode() as bare:
        for connections in steps:
            mine, reference = pairs(
                platform, bare, "load", connections=connections, rounds=1, seconds=options.pick(4, 2)
            )
            ours.append(_point(connections, mine[0]))
            theirs.append(_point(connections, reference[0]))
            options.say(f"{connections} connections")
    return Result(figures=[], curves=[Curve(name="sandpost", points=ours), Curve(name="bare Node", points=theirs)])


def _point(connections: int, run: wrk.Run) -> Point:
    return Point(connections=connections, rate=run.rate, p50=milliseconds(run.p50), p99=milliseconds(run.p99))

"""The gate and the resolver, in the tests' lab."""

import asyncio

from bench import egress
from bench.options import Options
from bench.result import Figure, Result, milliseconds


def gate_and_resolver(options: Options) -> Result:
    """Bytes and connections through the gate beside direct ones, kept answers beside an echo, in turns."""
    rounds = options.pick(5, 1)
    found = asyncio.run(egress.measure(rounds, options.pick(6000, 1000)))
    return Result(
        figures=[
            Figure(
                name="through the gate",
                value=found["gate_bytes"] / 1e9,
                unit="GB/s",
                # 0.3 of a direct connection's, or 1 GB/s, whichever is less.
                goal=min(0.3 * found["direct_bytes"] / 1e9, 1.0),
                better="more",
                reference=found["direct_bytes"] / 1e9,
                beside="a direct connection",
                note=f"{rounds} rounds in turns",
            ),
            Figure(
                name="added by the gate from connect to the first answer, p50",
                value=milliseconds(found["gate_connect"] - found["direct_connect"]),
                unit="ms",
                goal=1.0,
                reference=milliseconds(found["direct_connect"]),
                beside="a direct connection, whole",
                note=f"p99 {milliseconds(found['gate_connect_p99']):.2f} ms in all",
            ),
            Figure(
                name="kept answers of the resolver",
                value=found["answers"],
                unit="/s",
                goal=2000,
                better="more",
                reference=found["echoes"],
                beside="an echo of datagrams in Python",
            ),
            Figure(
                name=f"a kept answer at {egress.PACE:,} questions a second, p50",
                value=milliseconds(found["answer"]),
                unit="ms",
                goal=1.0,
                reference=milliseconds(found["echo"]),
                beside="the same echo",
                note=f"p99 {milliseconds(found['answer_p99']):.2f} ms",
            ),
        ]
    )

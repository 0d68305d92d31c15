"""What sandboxes cost: milliseconds a step, sandboxes a second, memory of idle ones.

    .venv/bin/python bench/sandboxes.py [--alone 30] [--rate 150] [--idle 200] [--json FILE]

Drives the engine alone, with the real runtime, on a place that it claims; needs root.
"""

import argparse
import asyncio
import json
import os
import resource
import shutil
import socket
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from sandpost.config import claims, machine
from sandpost.engines import launch
from sandpost.engines.contract import SandboxSpec
from sandpost.engines.oci import OciEngine
from sandpost.image.build import ensure
from sandpost.model.host import SANDBOX_PORT, Host, Users
from sandpost.model.limits import Limits
from sandpost.model.names import new_sandbox_id
from sandpost.network import namespaces
from sandpost.network.addresses import SlotRing
from sandpost.supervisor import layout

RUN_ROOT = "/run/sandpost"
IMAGES = "/var/lib/sandpost/image"
CREATORS = 3


def bench_host(instance: int, run_dir: str) -> Host:
    """Describe an installation that exists for the bench alone; its addresses are the instance's default share."""
    digest = ensure(IMAGES, print)
    return Host(
        instance=instance,
        state_dir=run_dir,
        run_dir=run_dir,
        image_dir=IMAGES,
        image=digest,
        listen_host="127.0.0.1",
        listen_port=0,
        workers=1,
        users=Users(proxy=65001, api=65002, collector=65003, egress=65005, gid=65001),
        sandbox_network=f"198.{18 + instance // 8}.{instance % 8 * 32}.0/19",
        sandbox_uids=1_000_000_000 + instance * 65536,
        runtime_command=machine.oci_runtime(),
        cgroups=2 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1,
        pool_size=0,
        parallel_starts=CREATORS,
        queue=1,
        memory_reserve=0.1,
        drain_timeout=1,
        head_timeout=1,
        body_timeout=1,
        keep_alive=1,
        max_head=1,
        max_connections=1,
        max_programs=1 << 27,
        defaults=Limits(),
    )


class Bench:
    """An engine with the clocks of its steps."""

    def __init__(self, host: Host, engine: OciEngine) -> None:
        self.host = host
        self.engine = engine
        self.ring = SlotRing(host.slots)
        self.steps: dict[str, list[float]] = defaultdict(list)
        self.sink = os.open("/dev/null", os.O_WRONLY)

    async def make(self) -> SandboxSpec:
        """Make a sandbox and wait for its first answer."""
        name = new_sandbox_id()
        spec = SandboxSpec(
            sandbox_id=name,
            group_id=name,
            slot=self.ring.deal(),
            runtime="node",
            engine=self.host.engine,
            limits=Limits(),
            stdout=self.sink,
            stderr=self.sink,
            frames=self.sink,
        )
        began = time.perf_counter()
        await self.engine.start(spec)
        started = time.perf_counter()
        await self._answer(str(self.host.slot_addresses(spec.slot)[1]))
        ready = time.perf_counter()
        self.steps["start"].append(started - began)
        self.steps["first answer after start"].append(ready - started)
        self.steps["first answer in all"].append(ready - began)
        return spec

    async def end(self, spec: SandboxSpec) -> None:
        """Remove a sandbox and give its slot back."""
        began = time.perf_counter()
        await self.engine.remove(spec.sandbox_id, spec.group_id, spec.slot)
        self.steps["remove"].append(time.perf_counter() - began)
        self.ring.give_back(spec.slot)

    async def _answer(self, address: str) -> None:
        end = time.monotonic() + 10
        while True:
            try:
                reader, writer = await asyncio.open_connection(address, SANDBOX_PORT)
                break
            except ConnectionRefusedError:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.003)
        writer.write(b"GET / HTTP/1.1\r\nHost: sandbox\r\nConnection: close\r\n\r\n")
        if not (await reader.readline()).startswith(b"HTTP/1.1 "):
            raise RuntimeError("the runtime did not answer")
        writer.close()
        await writer.wait_closed()


def clocked(steps: dict[str, list[float]], name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """Return `work` with its times kept."""

    def run(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return work(*arguments, **named)
        finally:
            steps[name].append(time.perf_counter() - began)

    return run


def available() -> int:
    """Return MemAvailable in bytes."""
    with open("/proc/meminfo", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))


def cpu() -> tuple[float, float]:
    """Return CPU seconds of this process and of the OCI runtimes that it waited for."""
    ours, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return ours.ru_utime + ours.ru_stime, theirs.ru_utime + theirs.ru_stime


async def alone(bench: Bench, count: int) -> None:
    """Make and end one after another."""
    for _ in range(count):
        await bench.end(await bench.make())


async def rate(bench: Bench, count: int) -> dict[str, float]:
    """Make and end with several creators at once; everything counts, the removal too."""
    left = count

    async def creator() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await bench.end(await bench.make())

    before, began = cpu(), time.perf_counter()
    await asyncio.gather(*(creator() for _ in range(CREATORS)))
    took, after = time.perf_counter() - began, cpu()
    return {
        "sandboxes a second": count / took,
        "our CPU a sandbox, ms": (after[0] - before[0]) / count * 1e3,
        "CPU of the OCI runtime a sandbox, ms": (after[1] - before[1]) / count * 1e3,
    }


async def idle(bench: Bench, counts: list[int]) -> dict[str, float]:
    """Keep many alive and divide what MemAvailable lost."""
    await alone(bench, 3)
    await asyncio.sleep(2)
    specs: list[SandboxSpec] = []
    found: dict[str, float] = {}
    before = available()
    for count in counts:
        while len(specs) < count:
            batch = min(CREATORS, count - len(specs))
            specs += await asyncio.gather(*(bench.make() for _ in range(batch)))
        await asyncio.sleep(5)
        found[f"MiB an idle sandbox of {count}"] = (before - available()) / count / (1 << 20)
    began = time.perf_counter()
    for start in range(0, len(specs), 8):
        await asyncio.gather(*(bench.end(spec) for spec in specs[start : start + 8]))
    found["ms a removal, 8 at once"] = (time.perf_counter() - began) / len(specs) * 1e3
    return found


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all parts and return the figures."""
    socket.setdefaulttimeout(10)
    state_dir = tempfile.mkdtemp(prefix="sandpost-bench-")
    instance = claims.claim(RUN_ROOT, state_dir, None, lambda _: False, layout.make_run_dir)
    host = bench_host(instance, claims.folder(RUN_ROOT, instance))
    engine = OciEngine(host)
    await engine.open()
    bench = Bench(host, engine)
    namespaces.make = clocked(bench.steps, "network slot", namespaces.make)
    launch.run = clocked(bench.steps, "runc", launch.run)
    groups = engine._groups  # noqa: SLF001 - the clock stands where the engine calls
    groups.create = clocked(bench.steps, "groups", groups.create)  # type: ignore[method-assign]
    try:
        await alone(bench, 2)
        bench.steps.clear()
        await alone(bench, arguments.alone)
        steps = {
            name: {"median": statistics.median(times) * 1e3, "min": min(times) * 1e3, "max": max(times) * 1e3}
            for name, times in bench.steps.items()
        }
        figures = await rate(bench, arguments.rate)
        if arguments.idle:
            figures |= await idle(bench, sorted({min(50, arguments.idle), arguments.idle}))
    finally:
        for found in engine.find():
            await engine.remove(found.sandbox_id, found.group_id, found.slot or 0)
        await engine.close(purge=True)
        claims.release(RUN_ROOT, instance, state_dir, layout.remove_run_dir)
        shutil.rmtree(state_dir)
    return {"steps": steps, "figures": figures}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alone", type=int, default=30)
    parser.add_argument("--rate", type=int, default=150)
    parser.add_argument("--idle", type=int, default=200)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    result = asyncio.run(measure(arguments))
    print(f"{'one at a time, ms':<30}{'median':>9}{'min':>9}{'max':>9}")
    for name, row in result["steps"].items():
        print(f"{name:<30}{row['median']:>9.1f}{row['min']:>9.1f}{row['max']:>9.1f}")
    print()
    for name, value in result["figures"].items():
        print(f"{name:<40}{value:>9.2f}")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()

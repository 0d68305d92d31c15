"""Every system call made from inside a real sandbox, against the table: a line for each that got something else."""

import asyncio
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpost.engines.oci import OciEngine
from sandpost.walls.oci_config import Walls
from sandpost.walls.seccomp.profile import checked
from sandpost.walls.seccomp.rules import U64, Condition
from support import libseccomp, syscalls
from support.engine_bed import Bed, claimed_host
from support.syscalls import X32, Call

HIGHEST = 600
"""Well above the newest call of any kernel."""
FILLERS = {
    # The kernel has an EPERM or ENOSYS of its own for other values: what it does with these is seen to be its own.
    "futex": (U64, 1, U64, U64, U64, U64),
    "clone": (0,) * 6,
}


def number(name: str) -> int:
    return libseccomp.number("SCMP_ARCH_X86_64", name)


def sweep() -> Iterator[Call]:
    """Every number, in every way into the kernel that x86_64 has."""
    filled = {number(name): arguments for name, arguments in FILLERS.items()}
    for nr in range(HIGHEST):
        yield Call(nr, filled.get(nr, syscalls.EVERYTHING))
        yield Call(nr | X32)
        yield Call(nr, entry="int 0x80")
    for nr in (1 << 29, 1 << 31, (1 << 31) - 1, (1 << 32) - 2):
        yield Call(nr)


def near(condition: Condition) -> Iterator[int]:
    """Values that meet a condition at its edges, and those that differ from one in a bit."""
    if condition.compare == "below":
        yield from (0, condition.value - 1, condition.value, condition.value + 1, U64, 1 << 31, 1 << 32)
        return
    yield condition.value
    yield condition.value | (~condition.mask & U64)
    for bit in range(64):
        yield condition.value ^ (1 << bit)


def edges() -> Iterator[Call]:
    """Every call whose arguments are looked at, each way with one of its arguments at and beside what it asks for."""
    for one in checked("x86_64"):
        for way in one.ways:
            base = list(FILLERS.get(one.call, syscalls.EVERYTHING))
            for condition in way:
                base[condition.argument] = condition.value - 1 if condition.compare == "below" else condition.value
            for condition in way:
                for value in near(condition):
                    arguments = [*base]
                    arguments[condition.argument] = value
                    yield Call(number(one.call), tuple(arguments))


@pytest.fixture(scope="module")
def prober(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return syscalls.build(tmp_path_factory.mktemp("prober"))


async def differences(bed: Bed, prober: Path, calls: list[Call]) -> list[str]:
    box = await bed.make()
    outcomes = await asyncio.to_thread(syscalls.make, box, prober, calls)
    machine = platform.machine()
    return [
        f"{call}: {outcome.verdict()} ({outcome.state} {outcome.value}), not {syscalls.expected(machine, call)}"
        for call, outcome in zip(calls, outcomes, strict=True)
        if not outcome.agrees(call, machine)
    ]


FLUSHES = """const fs = require('fs');
const image = fs.openSync(process.execPath, 'r'), own = fs.openSync('/tmp/own', 'w');
fs.writeSync(own, 'kept');
for (let n = 0; n < 100; n++) { fs.fsyncSync(image); fs.fdatasyncSync(image); }
fs.fsyncSync(own);
return fs.readFileSync('/tmp/own', 'utf8')"""


def flushes() -> int:
    """How often the disks of this machine were told to flush what they hold (Documentation/admin-guide/iostats)."""
    lines = Path("/proc/diskstats").read_text().splitlines()
    return sum(int(line.split()[18]) for line in lines)


def test_a_program_that_waits_for_the_disk_makes_no_disk_flush(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        before = flushes()
        assert await asyncio.to_thread(box.call, FLUSHES) == "kept"
        # Others on the machine flush too, though not two hundred times.
        assert flushes() - before < 100

    asyncio.run(body())


@pytest.mark.engine("runc")
def test_every_system_call_gets_what_the_table_says(bed: Bed, prober: Path) -> None:
    assert asyncio.run(differences(bed, prober, list(sweep()))) == []


@pytest.mark.engine("runc")
def test_arguments_decide_where_the_table_looks_at_them(bed: Bed, prober: Path) -> None:
    assert asyncio.run(differences(bed, prober, list(edges()))) == []


def test_a_sandbox_without_the_filter_would_be_noticed(prober: Path, tmp_path: Path) -> None:
    with claimed_host() as host:
        engine = OciEngine(host, Walls(seccomp={"defaultAction": "SCMP_ACT_ALLOW"}))
        asyncio.run(engine.open())
        bed = Bed(host, engine, tmp_path)
        try:
            lines = asyncio.run(differences(bed, prober, [Call(nr) for nr in range(HIGHEST)]))
        finally:
            asyncio.run(bed.clear())
            asyncio.run(engine.close(purge=True))
    assert len(lines) > 150
    assert any(" bpf(" in line for line in lines)

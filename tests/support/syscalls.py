"""System calls made from inside a sandbox by a program that a tenant could send, and what the table says of each."""

import base64
import errno
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sandpost.walls.seccomp import ARCHITECTURES
from sandpost.walls.seccomp.profile import checked, groups
from sandpost.walls.seccomp.table import ABSENT, NEWEST, PRETENDED
from support import libseccomp
from support.engine_bed import Sandbox

SOURCE = Path(__file__).with_name("prober.c")
U64 = (1 << 64) - 1
NOTHING, EVERYTHING = (0,) * 6, (U64,) * 6
X32 = 1 << 30
PASSED = {335: "uretprobe", 336: "uprobe"}
"""Calls of x86_64 that newer kernels let past every filter, and which do nothing where root has set no probe."""
_JOB, _OUTCOME = struct.Struct("<8Q"), struct.Struct("<2q")
_SIGSYS = 31

Verdict = Literal["allowed", "pretended", "EPERM", "ENOSYS", "killed"]


@dataclass(frozen=True)
class Call:
    """A system call to make: number, arguments, and the way into the kernel."""

    number: int
    arguments: tuple[int, ...] = EVERYTHING
    entry: Literal["syscall", "int 0x80"] = "syscall"

    def __str__(self) -> str:
        name = libseccomp.name("SCMP_ARCH_X86_64", self.number) if self.entry == "syscall" else ""
        return f"{self.entry} {self.number:#x} {name}({', '.join(f'{one:#x}' for one in self.arguments)})"


@dataclass(frozen=True)
class Outcome:
    """What became of a call: what it returned, the signal that ended it, the status it ended with, or silence."""

    state: Literal["returned", "signalled", "ended", "silent"]
    value: int

    def agrees(self, call: Call, machine: str) -> bool:
        """Whether this is what the table says of `call`."""
        wanted = expected(machine, call)
        if wanted == "pretended":
            return (self.state, self.value) == ("returned", 0)
        return self.verdict() == wanted or (machine == "x86_64" and call.entry == "syscall" and call.number in PASSED)

    def verdict(self) -> Verdict:
        """Return what the kernel seems to have done with the call."""
        if self.state == "signalled" and self.value == _SIGSYS:
            return "killed"
        if self.state == "returned" and self.value == -errno.EPERM:
            return "EPERM"
        if self.state == "returned" and self.value == -errno.ENOSYS:
            return "ENOSYS"
        return "allowed"


def expected(machine: str, call: Call) -> Verdict:
    """Return what the table says of a call."""
    architecture = ARCHITECTURES[machine]
    if call.entry != "syscall" or (machine == "x86_64" and call.number & X32):
        return "killed"
    if call.number > libseccomp.number(architecture, NEWEST):
        return "ENOSYS"
    name = libseccomp.name(architecture, call.number)
    if name in ABSENT:
        return "ENOSYS"
    if any(one.call == name and one.allows(call.arguments) for one in PRETENDED):
        return "pretended"
    if any(name in group.calls for group in groups(machine)):
        return "allowed"
    return "allowed" if any(one.call == name and one.allows(call.arguments) for one in checked(machine)) else "EPERM"


def build(folder: Path) -> Path:
    """Compile the prober; it needs nothing but the kernel."""
    made = folder / "prober"
    options = ["-Os", "-Wall", "-Wextra", "-Werror", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector"]
    options += ["-fno-asynchronous-unwind-tables", "-fno-pie", "-no-pie"]
    subprocess.run(["gcc", *options, "-o", str(made), str(SOURCE)], check=True)
    return made


def make(box: Sandbox, prober: Path, calls: Sequence[Call]) -> list[Outcome]:
    """Make `calls` inside a sandbox, as a tenant would: a program writes the prober to /tmp and runs it."""
    jobs = b"".join(_JOB.pack(call.entry != "syscall", call.number, *call.arguments) for call in calls)
    program = prober.read_bytes()
    said = box.call(
        f"""const fs = require('fs');
        fs.writeFileSync('/tmp/prober', sent.subarray(0, {len(program)}), {{mode: 0o755}});
        const input = sent.subarray({len(program)});
        const done = require('child_process').spawnSync('/tmp/prober', {{input, maxBuffer: 1 << 26}});
        return {{status: done.status, error: String(done.error ?? ''), out: done.stdout?.toString('base64')}};""",
        sent=program + jobs,
        patience=100.0,
    )
    assert (said["status"], said["error"]) == (0, ""), said
    states: tuple[Literal["returned", "signalled", "ended", "silent"], ...] = (
        "returned",
        "signalled",
        "ended",
        "silent",
    )
    outcomes = [Outcome(states[state], value) for state, value in _OUTCOME.iter_unpack(base64.b64decode(said["out"]))]
    assert len(outcomes) == len(calls)
    return outcomes

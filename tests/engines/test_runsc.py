"""What runsc gives where it is not what runc gives: system calls, and what a program can learn."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from engines.test_system_calls import sweep
from sandpost.walls.seccomp.table import NEWEST
from support import libseccomp, runsc_calls, syscalls
from support.engine_bed import Bed, Sandbox
from support.syscalls import Call

pytestmark = pytest.mark.engine("runsc")


def column(call: Call) -> str:
    """What gVisor's kernel says of a call."""
    name = libseccomp.name("SCMP_ARCH_X86_64", call.number) if call.entry == "syscall" else ""
    newest = libseccomp.number("SCMP_ARCH_X86_64", NEWEST)
    if not name or call.number > newest or name in runsc_calls.ABSENT:
        return "ENOSYS"
    return "EPERM" if name in runsc_calls.REFUSED else "allowed"


def test_every_system_call_gets_what_its_column_says(bed: Bed, tmp_path: Path) -> None:
    async def body() -> None:
        calls = list(sweep())
        outcomes = await asyncio.to_thread(syscalls.make, await bed.make(), syscalls.build(tmp_path), calls)
        assert [
            f"{call}: {outcome.verdict()}, not {column(call)}"
            for call, outcome in zip(calls, outcomes, strict=True)
            if outcome.verdict() != column(call)
        ] == []

    asyncio.run(body())


def test_nothing_that_a_program_can_read_tells_of_the_host_or_of_how_it_is_held(bed: Bed) -> None:
    async def body() -> None:
        box, other = await asyncio.gather(bed.make(), bed.make())
        text: str = box.call(
            """const fs = require('fs'), path = require('path'); let all = '';
            const walk = (top, depth) => { for (const name of fs.readdirSync(top)) {
              const one = path.join(top, name);
              try {
                const kind = fs.lstatSync(one);
                all += one + '\\n';
                if (kind.isSymbolicLink()) all += fs.readlinkSync(one) + '\\n';
                else if (kind.isDirectory()) { if (depth) walk(one, depth - 1); }
                else if (kind.isFile()) all += fs.readFileSync(one, 'latin1') + '\\n';
              } catch { /* what cannot be read tells nothing */ }
            } };
            walk('/proc', 4); walk('/sys', 6);
            return all;"""
        )
        assert "gvisor" in text
        host = bed.host
        for told in (
            host.run_dir, host.state_dir, host.image, host.cgroup_parent, host.interface_prefix, box.spec.sandbox_id,
            other.spec.sandbox_id, str(box.uid()), str(other.uid()), os.uname().release,
        ):  # fmt: skip
            assert told not in text, told

    asyncio.run(body())


def test_its_output_cannot_be_read_back(bed: Bed, tmp_path: Path) -> None:
    async def body() -> None:
        path = tmp_path / "out"
        os.mkfifo(path)
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        # As an installation's: the end that is handed on can only be written to.
        writing = os.open(path, os.O_WRONLY)
        try:
            spec = replace(bed.spec(), stdout=writing)
            box = Sandbox(bed.host, spec, await bed.engine.start(spec), spec.frames)
            seen = box.call(
                """const fs = require('fs'); fs.writeSync(1, 'said'); const code = (work) => { try { return work(); } catch (e) { return e.code; } };
                return [code(() => fs.readSync(1, Buffer.alloc(4))),
                  code(() => fs.readSync(fs.openSync('/proc/1/fd/1', fs.constants.O_RDONLY | fs.constants.O_NONBLOCK), Buffer.alloc(4)))];"""
            )
            assert all(isinstance(one, str) for one in seen), seen
            assert os.read(reading, 10) == b"said"
        finally:
            os.close(writing)
            os.close(reading)

    asyncio.run(body())

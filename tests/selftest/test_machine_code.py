"""The program that makes system calls runs on this machine and tells what they returned."""

import os
import subprocess
from pathlib import Path

from sandpost.selftest.machine_code import Call, program, results

GETPID, GETPPID, OPEN, WRITE = 39, 110, 2, 1


def test_calls_are_made_in_order_with_their_arguments(tmp_path: Path) -> None:
    target = tmp_path / "written"
    file = tmp_path / "calls"
    file.write_bytes(
        program([
            Call(GETPPID),
            Call(OPEN, (bytes(target), os.O_CREAT | os.O_WRONLY, 0o600)),
            Call(WRITE, (3, b"four", 4)),
            Call(OPEN, (b"/nowhere", 0)),
            Call(99999),
        ])
    )  # fmt: skip
    file.chmod(0o700)
    done = subprocess.run([file], capture_output=True, timeout=10, check=True)
    assert results(done.stdout) == [os.getpid(), 3, 4, -2, -38]
    assert target.read_bytes() == b"four"

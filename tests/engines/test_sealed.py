"""The OCI runtime's program as a sealed copy."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpost.engines.sealed import Sealed


@pytest.fixture
def program(tmp_path: Path) -> Path:
    shutil.copy("/bin/true", tmp_path / "program")
    return tmp_path / "program"


@contextlib.contextmanager
def sealed(path: Path) -> Iterator[Sealed]:
    made = Sealed(str(path))
    yield made
    made.close()


def run(path: str) -> int:
    pid = os.posix_spawn(path, ["program"], {})
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_copy_runs_and_nobody_can_change_it(program: Path) -> None:
    with sealed(program) as made:
        path = made.program()
        assert path.startswith("/proc/self/fd/")
        assert made.program() == path
        assert Path(path).read_bytes() == program.read_bytes()
        assert run(path) == 0
        with pytest.raises(PermissionError), open(path, "r+b") as file:
            file.write(b"x")
    assert not os.path.exists(path)


def test_a_changed_file_is_copied_anew_and_a_copy_in_use_stays(program: Path) -> None:
    with sealed(program) as made:
        before = made.program()
        shutil.copy("/bin/false", program.with_name("new"))
        program.with_name("new").rename(program)
        after = made.program()
        assert (run(before), run(after)) == (0, 1)


def test_a_script_and_a_missing_file_are_left_to_the_caller(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\nexit 3\n")
    script.chmod(0o755)
    with sealed(script) as made:
        assert made.program() == str(script)
        assert run(made.program()) == 3
    with sealed(tmp_path / "none") as made:
        assert made.program() == str(tmp_path / "none")

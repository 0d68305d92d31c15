"""Unprivileged parts reach our program through closed folders, and nothing else in them."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpost.config.program import program_folders, unreadable
from sandpost.supervisor import reach


def look(closed: dict[str, list[str]], paths: list[Path]) -> list[bool]:
    """As an unprivileged user with the way opened, say which of `paths` can be read."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            reach.open_way(closed)
            os.setgroups([])
            os.setresgid(54321, 54321, 54321)
            os.setresuid(54321, 54321, 54321)
            os.write(writer, bytes(os.access(path, os.R_OK) for path in paths))
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        seen = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    return [bool(byte) for byte in seen]


@pytest.fixture
def home() -> Iterator[Path]:
    top = Path(tempfile.mkdtemp(prefix="sandpost-reach-"))
    top.chmod(0o711)
    made = top / "home"
    for name in ("program/src", "python/bin", "private"):
        (made / name).mkdir(parents=True)
        (made / name / "file").write_text(name)
    made.chmod(0o700)
    yield made
    shutil.rmtree(top)


def test_only_what_is_needed_is_seen_through_a_closed_folder(home: Path) -> None:
    needed = [str(home / "program"), str(home / "program" / "src"), str(home / "python")]
    closed = reach.closed_above(needed)
    assert closed == {str(home): needed}
    paths = [home / "program/src/file", home / "python/bin/file", home / "private/file"]
    assert look({}, paths) == [False, False, False]
    assert look(closed, paths) == [True, True, False]
    # Nothing of it is seen outside that process.
    assert (home / "private/file").read_text() == "private"
    assert str(home) not in Path("/proc/self/mounts").read_text()


def test_open_folders_need_nothing(home: Path) -> None:
    home.chmod(0o755)
    assert reach.closed_above([str(home / "program")]) == {}


def test_a_program_that_others_cannot_read_is_named(home: Path) -> None:
    program = home / "program"
    assert unreadable([str(program)]) == []
    program.chmod(0o750)
    assert unreadable([str(program)]) == [str(program)]


def test_our_own_program_can_be_read() -> None:
    assert unreadable(program_folders()) == []

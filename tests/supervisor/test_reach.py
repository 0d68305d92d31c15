"""What an unprivileged part sees of the files: what it needs, whatever folders are above it, and nothing else."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandpost.kernel.program import program_folders, unreadable
from sandpost.supervisor import reach
from sandpost.supervisor.reach import Reach

USER = 54321


def seen_by(confined: Reach | None, *questions: Callable[[], object]) -> list[bool]:
    """As an unprivileged user with these mounts, say which of the questions raise no `OSError`."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if confined is not None:
                reach.confine(confined)
            os.setgroups([])
            os.setresgid(USER, USER, USER)
            os.setresuid(USER, USER, USER)
            for question in questions:
                try:
                    question()
                except OSError:
                    os.write(writer, b"\0")
                else:
                    os.write(writer, b"\1")
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
    for name in ("program/src", "python/bin", "private", "own"):
        (made / name).mkdir(parents=True)
        (made / name / "file").write_text(name)
    (made / "own").chmod(0o777)
    made.chmod(0o700)
    yield made
    shutil.rmtree(top)


def test_only_what_is_needed_is_seen_through_a_closed_folder(home: Path) -> None:
    needed = Reach((str(home / "program"), str(home / "program" / "src"), str(home / "python")), ())
    questions = [(home / path / "file").read_bytes for path in ("program/src", "python/bin", "private", "own")]
    assert seen_by(None, *questions) == [False, False, False, False]
    assert seen_by(needed, *questions) == [True, True, False, False]
    # Nothing of it is seen outside that process.
    assert (home / "private/file").read_text() == "private"
    assert str(home) not in Path("/proc/self/mounts").read_text()


def test_what_may_be_read_cannot_be_written_and_what_may_be_written_cannot_be_run(home: Path) -> None:
    home.chmod(0o755)
    for path in ("program/src/file", "own/file"):
        (home / path).chmod(0o777)
    (home / "own/true").write_bytes(Path("/bin/true").read_bytes())
    (home / "own/true").chmod(0o755)
    questions: list[Callable[[], object]] = [
        lambda: (home / "program/src/file").write_text("changed"),
        lambda: (home / "own/file").write_text("changed"),
        lambda: os.execv(home / "own/true", ["true"]),
    ]
    assert seen_by(None, *questions[:2]) == [True, True]
    seen = Reach((str(home), "/usr", "/lib", "/lib64"), (str(home / "own"),))
    assert seen_by(seen, *questions) == [False, True, False]


def test_nothing_else_of_the_machine_is_there(home: Path) -> None:
    paths = ["/etc/passwd", "/proc/self/status", "/tmp", "/run", "/home", "/dev/tty", "/sys/kernel"]
    questions = [lambda path=path: os.stat(path) for path in paths]
    assert all(seen_by(None, *questions))
    assert not any(seen_by(Reach((str(home / "program"),), ()), *questions[:2], *questions[3:]))
    assert not any(seen_by(Reach((str(home / "program"),), ()), lambda: os.mkdir("/x"), lambda: os.mkdir("/tmp/x")))


def test_links_on_the_way_are_there_too(home: Path) -> None:
    home.chmod(0o755)
    (home / "program/bin").mkdir()
    (home / "elsewhere").mkdir()
    os.symlink("../python", home / "elsewhere/current")
    os.symlink(home / "elsewhere/current/bin/file", home / "program/bin/python")
    program = str(home / "program/bin/python")
    links, places = reach.plan(Reach((program, str(home / "program"), str(home / "python/bin")), ()))
    assert links == {str(home / "elsewhere/current"): "../python"}
    assert places == {str(home / "program"): False, str(home / "python/bin"): False}
    assert seen_by(Reach((program, str(home / "program")), ()), Path(program).read_bytes) == [True]


def test_what_is_not_there_is_left_out(home: Path) -> None:
    assert reach.plan(Reach((str(home / "missing"),), (str(home / "missing2"),))) == ({}, {})


def test_a_program_that_others_cannot_read_is_named(home: Path) -> None:
    program = home / "program"
    assert unreadable([str(program)]) == []
    program.chmod(0o750)
    assert unreadable([str(program)]) == [str(program)]


def test_our_own_program_can_be_read() -> None:
    assert unreadable(program_folders()) == []

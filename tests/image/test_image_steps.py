"""A step of a build ends with the build, whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sandpost.image import steps
from sandpost.model.errors import HostUnfit
from support.waiting import until


def named(mark: str) -> list[int]:
    """Pids of the processes that have `mark` as a word of their command line."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in words:
            found.append(int(name))
    return found


def test_a_step_says_what_it_printed_and_what_went_wrong(tmp_path: Path) -> None:
    assert steps.run(["printf", "two words"], "print", str(tmp_path)) == "two words"
    with pytest.raises(HostUnfit, match="could not fail: `sh` ended with 7: no luck"):
        steps.run(["sh", "-c", "echo no luck >&2; exit 7"], "fail", str(tmp_path))
    with pytest.raises(HostUnfit, match="apt-get install no-such-program"):
        steps.run(["no-such-program"], "start", str(tmp_path))


def test_nothing_outlives_the_end_of_a_step(tmp_path: Path) -> None:
    mark = f"600.{os.getpid()}1"
    steps.run(["sh", "-c", f"setsid sleep {mark} >/dev/null 2>&1 &"], "begin", str(tmp_path))
    until(lambda: not named(mark), "what it left behind has ended")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_step_ends_with_the_build_however_that_ends(tmp_path: Path, number: signal.Signals) -> None:
    mark = f"600.{os.getpid()}2"
    # One in a session of its own, as a daemon's, and one whose parent waits for it.
    script = f"setsid sleep {mark} & sleep {mark}; true"
    program = f"from sandpost.image import steps; steps.run(['sh', '-c', {script!r}], 'sleep', {str(tmp_path)!r})"
    with subprocess.Popen([sys.executable, "-c", program]) as build:
        try:
            until(lambda: len(named(mark)) == 2, "the step runs")
            build.send_signal(number)
            build.wait(10)
            until(lambda: not named(mark), "all of it has ended")
        finally:
            build.kill()
            for pid in named(mark):
                os.kill(pid, signal.SIGKILL)

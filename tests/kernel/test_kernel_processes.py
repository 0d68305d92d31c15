"""A pid and a start time name one process for ever."""

import os
import subprocess

from sandpost.kernel.processes import runs, start_time


def test_a_process_is_known_until_it_has_ended_and_a_zombie_has() -> None:
    # A name that looks like the rest of the line.
    child = subprocess.Popen(["/bin/bash", "-c", "exec -a ') Z 1' sleep 60"])
    began = start_time(child.pid)
    assert began > 0
    assert runs(child.pid, began)
    assert not runs(child.pid, began + 1)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert start_time(child.pid) == 0, "a zombie"
    child.wait(10)
    assert not runs(child.pid, began)


def test_what_is_no_process_has_no_start_time() -> None:
    assert start_time(2**22 + 5) == 0
    assert not runs(0, 0)

"""A sandbox gets the descriptors that it is given, under their numbers, and no other, whatever numbers ours have."""

import asyncio
import errno
import fcntl
import os
import subprocess
import sys

import pytest

from sandpost.engines import launch
from sandpost.model.errors import EngineError
from support.engine_bed import Bed

# In a process of its own: it takes descriptors of every number.
PROGRAM = '''
import os
from sandpost.engines import launch

kept = [os.open("/dev/null", os.O_RDONLY) for _ in range(150)]
lock = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
_, out = os.pipe()
_, ready = os.pipe()
look = """cd /proc/$$/fd
[ $(readlink 1 2 3 4 | grep -c ^pipe:) = 4 ] || exit 1
for number in *; do [ "$number" = 63 ] || [ "$(readlink $number)" != / ] || exit 2; done"""
for first in range(12, 100):
    # Free are just these numbers, so every copy comes to stand on each of them in turn.
    free = range(first, first + 8)
    for fd in free:
        os.close(fd)
    code = launch.run(["/bin/sh", "-c", look], stdout=out, stderr=out, frames=out, ready=ready, lock=lock, patience=10)
    assert code == 0, (first, code)
    for fd in free:
        os.dup2(0, fd, inheritable=False)
'''


def test_no_number_of_ours_hands_a_sandbox_what_is_not_its_own() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], timeout=60, check=True)


def test_a_start_for_which_descriptors_are_wanting_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.fcntl
    copied: list[int] = []

    def scarce(*args: int) -> int:
        if len(copied) == 3:
            raise OSError(errno.EMFILE, "Too many open files")
        copied.append(real(*args))
        return copied[-1]

    null = os.open("/dev/null", os.O_WRONLY)
    try:
        before = os.listdir("/proc/self/fd")
        monkeypatch.setattr(fcntl, "fcntl", scarce)
        with pytest.raises(EngineError, match="Too many open files"):
            launch.run(["/bin/true"], stdout=null, stderr=null, frames=null, ready=None, lock=null, patience=10)
        assert os.listdir("/proc/self/fd") == before
    finally:
        os.close(null)


def test_a_runtime_that_makes_the_frames_block_changes_nothing_of_them() -> None:
    read, write = os.pipe()
    lock = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    null = os.open("/dev/null", os.O_WRONLY)
    try:
        os.set_blocking(write, False)
        command = [sys.executable, "-c", "import os; os.set_blocking(3, True)"]
        code = launch.run(command, stdout=null, stderr=null, frames=write, ready=None, lock=lock, patience=10)
        assert code == 0
        assert not os.get_blocking(write)
    finally:
        for fd in (read, write, lock, null):
            os.close(fd)


def test_a_program_that_logs_more_than_is_read_does_not_wait_for_the_reader(bed: Bed) -> None:
    async def body() -> None:
        box = await bed.make()
        flags = "return require('fs').readFileSync('/proc/self/fdinfo/3', 'latin1').match(/flags:\\s*(\\d+)/)[1]"
        assert int(box.call(flags), 8) & os.O_NONBLOCK
        # Nobody reads, and a FIFO holds 64 KiB.
        assert box.call("for (let i = 0; i < 3000; i++) console.log('x'.repeat(1000)); return 'done'") == "done"

    asyncio.run(body())

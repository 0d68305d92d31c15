"""A sandbox gets the descriptors that it is given, under their numbers, and no other, whatever numbers ours have."""

import subprocess
import sys

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

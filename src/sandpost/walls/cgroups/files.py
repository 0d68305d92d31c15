"""Reading and writing the files of control groups, and the processes in them."""

import contextlib
import errno
import os
import signal
import time

from sandpost.model.errors import EngineError

KILL_DEADLINE = 5.0
_MAKE_TRIES = 20


def write(path: str, value: str | int) -> None:
    """Write one value in one go, as the kernel wants it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def read(path: str) -> str:
    """Return a file's text without the last newline."""
    with open(path, encoding="ascii") as file:
        return file.read().rstrip("\n")


def number(path: str) -> int:
    """Return the number in a file; `max` is -1."""
    text = read(path)
    return -1 if text == "max" else int(text)


def fields(path: str) -> dict[str, int]:
    """Return a flat-keyed file (`oom_kill 3`) as a mapping."""
    pairs = (line.split() for line in read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def make(path: str) -> None:
    """Make a group and the one above it, while others may remove the one above at the same moment."""
    for _ in range(_MAKE_TRIES):
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.dirname(path))
        try:
            os.mkdir(path)
        except FileExistsError:
            return
        except FileNotFoundError:
            continue
        return
    raise EngineError(f"cannot make {path}: what is above it keeps disappearing")


def remove(path: str, deadline: float) -> None:
    """Remove a group without processes; a busy one is tried again until `deadline` (time.monotonic)."""
    pause = 0.001
    while True:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise EngineError(f"cannot remove the group {path}: {error.strerror}: see its cgroup.procs") from error
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        else:
            return


def remove_if_empty(path: str) -> None:
    """Remove a group unless there is a group or process in it, or it is gone."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise EngineError(f"cannot remove the group {path}: {error.strerror}") from error


def subgroups(path: str, prefix: str) -> list[str]:
    """List the groups directly below `path` whose name begins with `prefix`."""
    try:
        with os.scandir(path) as found:
            return sorted(entry.name for entry in found if entry.name.startswith(prefix) and entry.is_dir())
    except FileNotFoundError:
        return []


def processes(path: str) -> list[int]:
    """List the processes of a group; none if it is gone."""
    try:
        return [int(line) for line in read(os.path.join(path, "cgroup.procs")).split()]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return []
        raise


def kill_each(path: str, member: str) -> None:
    """Kill every process of a group, one by one, until none is left or `KILL_DEADLINE` has passed.

    `member` is how /proc/<pid>/cgroup of a process in it ends a line. With the sandbox's first process the kernel
    kills all others of its pid namespace, so that nothing can be forked faster than it is killed.
    """
    deadline = time.monotonic() + KILL_DEADLINE
    pause = 0.001
    while left := processes(path):
        for pid in left:
            _kill(pid, member)
        if time.monotonic() > deadline:
            raise EngineError(f"processes {left} survive in {path}: see /proc/<pid>/stack")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _kill(pid: int, member: str) -> None:
    # A number read from the group may belong to another process by now: the descriptor cannot.
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
            if any(line.rstrip("\n").endswith(member) for line in file):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)

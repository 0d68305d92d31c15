"""Which limits of a running sandbox are met right now, seen from outside: those that end nothing.

Nothing inside can make a look cost more than a few system calls, nor lead it elsewhere: `/tmp` is a mount of the
sandbox's own that it cannot replace, and only its figures are read.
"""

import os
from dataclasses import dataclass

from sandpost.model.limits import Limits

_CHILDREN = 8
"""Of the runtime: so many are looked at for their open files, and none of theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """`refused` counts processes and threads that `limits.pids` did not let be, since the sandbox began."""

    refused: int
    tmp_full: bool
    inodes_full: bool
    files_full: bool


def look(pid: int, limits: Limits, refused: int) -> Pressure | None:
    """Look at the sandbox whose first process is `pid`; None if it is gone."""
    try:
        runtime = _runtime(pid)
        files_full = _open_files(runtime) >= limits.files or any(
            _open_files(child) >= limits.files for child in _children(runtime)[:_CHILDREN]
        )
    except OSError:
        return None
    return look_at_tmp(pid, refused=refused, files_full=files_full)


def look_at_tmp(pid: int, *, refused: int = 0, files_full: bool = False) -> Pressure | None:
    """Look at the `/tmp` that process `pid` sees, and at nothing else; None if it is gone."""
    try:
        tmp = os.statvfs(f"/proc/{pid}/root/tmp")
    except OSError:
        return None
    return Pressure(refused=refused, tmp_full=tmp.f_bfree == 0, inodes_full=tmp.f_ffree == 0, files_full=files_full)


def _runtime(init: int) -> int:
    """Return the pid of the runtime, the first child of the sandbox's init."""
    children = _children(init)
    return children[0] if children else init


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


def _open_files(pid: int) -> int:
    """Return how many a process has open; 0 of one that has gone meanwhile."""
    folder = f"/proc/{pid}/fd"
    try:
        # Since Linux 6.2 the size of the folder is their number; before, it is always 0.
        return os.stat(folder).st_size or len(os.listdir(folder))
    except FileNotFoundError:
        return 0

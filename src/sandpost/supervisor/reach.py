"""Opens the way to our own program for unprivileged parts where a closed folder is above it.

Root often clones into /root, which nobody else may pass. A part then gets mounts of its own, in which such a
folder holds nothing but the way to the program; paths stay what they are, the folder itself is not opened to anybody.
"""

import os
import stat
from collections.abc import Iterable

from sandpost.kernel import calls

_WAY = 1 << 20
"""Bytes of a folder that holds nothing but the way to others."""


def closed_above(folders: Iterable[str]) -> dict[str, list[str]]:
    """Map each closed folder to those of `folders` that lie below it; the outermost closed folder of each counts."""
    found: dict[str, list[str]] = {}
    for folder in folders:
        for above in _above(folder):
            if not os.stat(above).st_mode & stat.S_IXOTH:
                found.setdefault(above, []).append(folder)
                break
    return found


def open_way(closed: dict[str, list[str]]) -> None:
    """In this process alone, replace each closed folder by the way to what is needed below it. Needs root."""
    calls.own_mounts()
    for above, folders in closed.items():
        held = {folder: os.open(folder, os.O_PATH | os.O_CLOEXEC) for folder in _outermost(folders)}
        calls.mount_tmpfs(above, _WAY)
        for folder, fd in held.items():
            os.makedirs(folder, mode=0o755, exist_ok=True)
            calls.bind(f"/proc/self/fd/{fd}", folder)
            os.close(fd)


def _above(folder: str) -> list[str]:
    parts = folder.split("/")
    return ["/".join(parts[:count]) or "/" for count in range(1, len(parts))]


def _outermost(folders: Iterable[str]) -> list[str]:
    unique = sorted(set(folders))
    return [one for one in unique if not any(one != other and one.startswith(f"{other}/") for other in unique)]

"""What an unprivileged part can reach of the files: mounts of its own, in which nothing else exists.

Paths stay what they are, also where a closed folder is above them: root often clones into /root, which nobody else
may pass, and nothing of it is opened to anybody. Other programs' sockets (D-Bus, Docker), `/proc`, `/tmp` and `/home`
are not there.
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from sandpost.kernel import calls

_SCAFFOLD = "/tmp"  # noqa: S108  (a folder that every machine has; the tree is built over it, in mounts of our own)
_MOST_LINKS = 200
_SIZE = 1 << 20
"""Bytes of a root that holds nothing but the ways to others."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Folders, with all that is below, and files; `write` may lie in `read`. What is not there is left out."""

    read: tuple[str, ...]
    write: tuple[str, ...]


def confine(reach: Reach) -> None:
    """In this process alone, leave nothing of the files but `reach`. Needs root; `OSError` if the kernel refuses."""
    calls.own_mounts()
    links, places = plan(reach)
    held = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in places}
    calls.mount_tmpfs(_SCAFFOLD, _SIZE)
    for path, text in links.items():
        os.makedirs(os.path.dirname(_SCAFFOLD + path), exist_ok=True)
        os.symlink(text, _SCAFFOLD + path)
    for path, writable in places.items():
        fd = held[path]
        _make(_SCAFFOLD + path, os.fstat(fd).st_mode)
        devices = stat.S_ISCHR(os.fstat(fd).st_mode)
        calls.bind(f"/proc/self/fd/{fd}", _SCAFFOLD + path, writable=writable, devices=devices)
        os.close(fd)
    calls.enter_root(_SCAFFOLD)


def plan(reach: Reach) -> tuple[dict[str, str], dict[str, bool]]:
    """Return the symbolic links to be made, text by path, and what is to be mounted, outer ones first.

    True means to be written. Looks at the files, changes nothing; what lies in something mounted is there already.
    """
    links: dict[str, str] = {}
    read, write = ({_follow(path, links) for path in paths} for paths in (reach.read, reach.write))
    places: dict[str, bool] = {}
    for path in sorted(filter(os.path.exists, read | write)):
        if path in write or not _within(path, places):
            places[path] = path in write
    return {path: text for path, text in links.items() if not _within(path, places)}, places


def _within(path: str, places: Iterable[str]) -> bool:
    return any(path.startswith(f"{place}/") for place in places)


def _follow(path: str, links: dict[str, str]) -> str:
    """Return where `path` really is; note the links on the way there."""
    real, rest = "/", path.split("/")
    while rest:
        part = rest.pop(0)
        if part == "..":
            real = os.path.dirname(real)
        elif part not in {"", "."}:
            real = os.path.join(real, part)
            if os.path.islink(real) and len(links) < _MOST_LINKS:
                links[real] = text = os.readlink(real)
                rest = [*text.split("/"), *rest]
                real = "/" if text.startswith("/") else os.path.dirname(real)
    return real


def _make(target: str, mode: int) -> None:
    """Make what something can be mounted on."""
    if stat.S_ISDIR(mode):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))

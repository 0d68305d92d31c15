"""Looks for keys in everything that an installation writes."""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

_KEY = re.compile(rb"sp_[0-9a-f]{8}_[A-Za-z0-9]{32}")
_BLOCK = 4 << 20


def keys_in(text: bytes | str) -> set[str]:
    """Return the keys that the platform made and shows in `text`."""
    return {found.decode() for found in _KEY.findall(text.encode() if isinstance(text, str) else text)}


def places_of(keys: Iterable[str], *folders: Path) -> list[str]:
    """Return the files below `folders` in which one of `keys` stands, each with the beginning of that key.

    Programs are left out: they are kept as their tenants sent them.
    """
    wanted = re.compile(b"|".join(re.escape(key.encode()) for key in keys))
    found = []
    for folder in folders:
        for path in _files(folder):
            seen = _search(path, wanted)
            if seen is not None:
                found.append(f"{path} has the key {seen.decode()[:12]}..")
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder on its own file system: what is mounted there is somebody else's."""
    try:
        device = folder.stat().st_dev
    except FileNotFoundError:
        return
    for top, folders, names in os.walk(folder):
        folders[:] = [
            name for name in folders if (Path(top) != folder or name != "code") and _device(Path(top, name)) == device
        ]
        yield from (Path(top, name) for name in names)


def _device(path: Path) -> int:
    try:
        return path.lstat().st_dev
    except FileNotFoundError:
        return -1


def _search(path: Path, wanted: re.Pattern[bytes]) -> bytes | None:
    """Return the first match in a file, however large; None if there is none or it is no file (any more)."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        with path.open("rb") as file:
            tail = b""
            while block := file.read(_BLOCK):
                match = wanted.search(tail + block)
                if match is not None:
                    return match[0]
                tail = block[-512:]
    except FileNotFoundError:
        pass
    return None

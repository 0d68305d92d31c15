"""Archives that a build fetches once and keeps: each is the file whose digest the recipe pins."""

import os
from collections.abc import Callable

from sandpost.image import tree
from sandpost.model.errors import HostUnfit


def kept(cache: str, digest: str, suffix: str, scratch: str, fetch: Callable[[str], None]) -> str:
    """Return the path below `cache` of the file whose SHA-256 is `digest`.

    If it is not there, `fetch` puts it into the empty folder that it is given, below `scratch`, under any name. Raises
    `HostUnfit` for another file than the pinned one.
    """
    path = os.path.join(cache, f"{digest}{suffix}")
    if os.path.exists(path) and tree.file_hash(path) == digest:
        return path
    folder = os.path.join(scratch, digest)
    os.makedirs(folder)
    fetch(folder)
    (name,) = os.listdir(folder)
    found = os.path.join(folder, name)
    if tree.file_hash(found) != digest:
        raise HostUnfit(f"{name} is not the file that the recipe pins: look at what the registry serves")
    os.makedirs(cache, mode=0o755, exist_ok=True)
    os.rename(found, path)
    return path

"""Images in use: held by running engines, found under running sandboxes, warmed for both, and the rest removed."""

import contextlib
import fcntl
import glob
import json
import os
import re
import time
from collections.abc import Collection

from sandpost.image import recipe, tree, workplace
from sandpost.model.errors import HostUnfit

UNUSED_FOR = 2 * 86400.0
"""Seconds after which what nobody used meanwhile is removed: who takes an upgrade back finds what he had. Who runs on
an image says so once a day."""
_DIGEST = re.compile(r"[0-9a-f]{32}")
_OVERLAY = "sandpost-image-"
_SOURCE = re.compile(rf" - overlay {_OVERLAY}([0-9a-f]+) ")
_HOT = (
    recipe.NODE,
    recipe.INIT,
    "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "usr/lib/x86_64-linux-gnu/libc.so.6",
    "usr/lib/x86_64-linux-gnu/libm.so.6",
    "usr/lib/x86_64-linux-gnu/libdl.so.2",
    "usr/lib/x86_64-linux-gnu/libpthread.so.0",
    "usr/lib/x86_64-linux-gnu/libstdc++.so.6",
    "usr/lib/x86_64-linux-gnu/libgcc_s.so.1",
    "usr/lib/x86_64-linux-gnu/libatomic.so.1",
)


_HOT_PYTHON = (
    "usr/bin/python3.*",
    "usr/lib/x86_64-linux-gnu/libexpat.so.1",
    "usr/lib/x86_64-linux-gnu/libz.so.1",
    "usr/lib/python3.*/__pycache__/*.pyc",
    "usr/lib/python3.*/lib-dynload/_[a-q]*.so",
    "usr/lib/python3.*/encodings/__pycache__/utf_8*.pyc",
    *(f"usr/lib/python3.*/{name}/__pycache__/*.pyc" for name in ("asyncio", "collections", "json", "logging")),
)
"""What a Python reads at its start and for its first asynchronous program."""

_HOT_CSHARP = (
    "usr/bin/mono-sgen",
    "usr/lib/libmono*",
    "usr/lib/mono/4.5/mcs.exe*",
    "usr/lib/mono/4.5/mscorlib.dll*",
    "usr/lib/mono/gac/Microsoft.CSharp/*/*",
    "usr/lib/mono/gac/System/*/*",
    "usr/lib/mono/gac/System.Core/*/*",
    "etc/mono/config",
)
"""What a first function in C# reads, compiler included."""


def keep(image_dir: str, digest: str) -> int:
    """Return a descriptor that keeps the image from being pruned while it is open; `HostUnfit` if it is not there."""
    path = os.path.join(image_dir, digest)
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(fd, fcntl.LOCK_SH)
        if _is_at(fd, path):
            return fd
        os.close(fd)
    raise HostUnfit(f"there is no image {digest} in {image_dir}: run scripts/serve, which builds it")


def hold(image_dir: str, digest: str) -> int:
    """As `keep`; raises `HostUnfit` too if a sandbox's unprivileged user could not reach the image."""
    fd = keep(image_dir, digest)
    closed = _closed_folder(os.path.join(image_dir, digest, "rootfs"))
    if closed is not None:
        os.close(fd)
        raise HostUnfit(f"sandboxes' users cannot pass {closed}: run `chmod o+x {closed}`")
    return fd


def want(image_dir: str, digest: str) -> bool:
    """Say whether the image is there; if it is, nobody removes it within `UNUSED_FOR`, the time to `keep` it."""
    path = os.path.join(image_dir, digest)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Where it cannot be written nobody can remove anything.
        with contextlib.suppress(OSError):
            os.utime(fd)
        return _is_at(fd, path)
    except BlockingIOError:
        # It is being looked at by who removes; whoever then takes the lock of those who build knows more.
        return False
    finally:
        os.close(fd)


def warm(rootfs: str) -> int:
    """Read what every sandbox reads at its start into the page cache; return the bytes.

    The group that first touches a page is charged for it: it must be none of a tenant's.
    """
    total = 0
    for name in _HOT:
        path = os.path.join(rootfs, name)
        if os.path.exists(path):
            total += tree.touch_pages(path)
    for pattern in (*_HOT_PYTHON, *_HOT_CSHARP):
        total += sum(tree.touch_pages(path) for path in glob.glob(os.path.join(rootfs, pattern)))
    for folder, _, files in os.walk(os.path.join(rootfs, recipe.RUNTIMES)):
        total += sum(tree.touch_pages(os.path.join(folder, name)) for name in files)
    return total


def overlay_source(digest: str) -> str:
    """Return what an overlay over the image is mounted as the source of, so that it is known to be in use."""
    return f"{_OVERLAY}{digest}"


def running(image_dir: str) -> set[str]:
    """Return the digests of the images that are the root of a process, or under the overlay that is one."""
    roots, overlaid = _seen()
    found = set()
    for name in os.listdir(image_dir):
        try:
            info = os.stat(os.path.join(image_dir, name, "rootfs"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        if (info.st_dev, info.st_ino) in roots or name in overlaid:
            found.add(name)
    return found


def prune(image_dir: str, keep: Collection[str], *, unused_for: float = UNUSED_FOR) -> list[str]:
    """Remove images, and layers that none is left of, and return their names below `image_dir`.

    Spared is what is in `keep`, held, the root of a process, or was used within `unused_for` seconds: of what is found
    in use that is noted, for machines that share the folder and for times in which nothing runs. What killed builds
    left goes too. While somebody builds, nothing is done. Raises `OSError`.
    """
    removed = []
    with workplace.locked_now(image_dir) as ours, contextlib.ExitStack() as held:
        if not ours:
            return []
        workplace.sweep(image_dir)
        images = [name for name in sorted(os.listdir(image_dir)) if _DIGEST.fullmatch(name)]
        used, doomed = [], []
        for name in images:
            path = os.path.join(image_dir, name)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if name in keep or not _unheld(fd):
                used.append(name)
            elif _is_old(fd, unused_for):
                doomed.append(name)
                held.callback(os.close, fd)
                continue
            # Who takes it now waits for nobody.
            os.close(fd)
        # Looked at last: who made a sandbox held its image until then, and nobody can take one of these now.
        spared = running(image_dir)
        for name in {*used, *spared}:
            os.utime(os.path.join(image_dir, name))
        removed = [name for name in doomed if name not in spared]
        for name in removed:
            workplace.remove(image_dir, name)
        for key in _unused_layers(image_dir, [name for name in images if name not in removed]):
            path = os.path.join(workplace.LAYERS, key)
            if _is_old(os.path.join(image_dir, path), unused_for):
                workplace.remove(image_dir, path)
                removed.append(path)
    return removed


def _closed_folder(path: str) -> str | None:
    while True:
        if not os.stat(path).st_mode & 0o001:
            return path
        if path == "/":
            return None
        path = os.path.dirname(path)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _unheld(fd: int) -> bool:
    """Say whether nobody holds it; then nobody can as long as `fd` is open."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_old(place: int | str, seconds: float) -> bool:
    return os.stat(place).st_mtime <= time.time() - seconds


def _unused_layers(image_dir: str, images: Collection[str]) -> list[str]:
    """Return the layers that none of `images` is made of; none while there is an image that does not say."""
    used: set[str] = set()
    for name in images:
        try:
            with open(os.path.join(image_dir, name, "manifest.json"), encoding="utf-8") as file:
                used.update(json.load(file)["layers"])
        except (OSError, ValueError, KeyError):
            return []
    with contextlib.suppress(FileNotFoundError):
        return sorted(set(os.listdir(os.path.join(image_dir, workplace.LAYERS))) - used)
    return []


def _seen() -> tuple[set[tuple[int, int]], set[str]]:
    """Return device and inode of every process's root, and the digests of the overlays that processes see."""
    roots, overlaid = set(), set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            info = os.stat(f"/proc/{name}/root")
            with open(f"/proc/{name}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
                mounts = file.read()
        except OSError:
            # It has ended, or is kept from root, as a machine's first process may be: no sandbox is.
            continue
        roots.add((info.st_dev, info.st_ino))
        overlaid.update(_SOURCE.findall(mounts))
    return roots, overlaid

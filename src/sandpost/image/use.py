"""Images in use: held by running engines, found under running sandboxes, warmed for both, and the rest removed."""

import fcntl
import os
import re
from collections.abc import Collection

from sandpost.image import recipe, tree
from sandpost.model.errors import HostUnfit

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


def hold(image_dir: str, digest: str) -> int:
    """Return a descriptor that keeps the image from being pruned while it is open.

    Raises `HostUnfit` if the image is not there or a sandbox's unprivileged user could not reach it.
    """
    path = os.path.join(image_dir, digest)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise HostUnfit(f"there is no image {digest} in {image_dir}: run scripts/serve, which builds it") from None
    fcntl.flock(fd, fcntl.LOCK_SH)
    closed = _closed_folder(os.path.join(path, "rootfs"))
    if closed is not None:
        os.close(fd)
        raise HostUnfit(f"sandboxes' users cannot pass {closed}: run `chmod o+x {closed}`")
    return fd


def warm(rootfs: str) -> int:
    """Read what every sandbox reads at its start into the page cache; return the bytes.

    The group that first touches a page is charged for it: it must be none of a tenant's.
    """
    total = 0
    for name in _HOT:
        path = os.path.join(rootfs, name)
        if os.path.exists(path):
            total += tree.touch_pages(path)
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


def prune(image_dir: str, keep: Collection[str]) -> list[str]:
    """Remove the images that are not in `keep`, not held and not the root of any process; return their digests."""
    spared = {*keep, *running(image_dir)}
    removed = []
    for name in sorted(os.listdir(image_dir)):
        path = os.path.join(image_dir, name)
        if name.startswith(".") or name in spared or not os.path.isdir(path) or not _unheld(path):
            continue
        # Renamed first: an image is complete or not there, also if we are killed half-way.
        doomed = os.path.join(image_dir, f".building-pruned-{name}")
        os.rename(path, doomed)
        tree.remove(doomed)
        removed.append(name)
    return removed


def _closed_folder(path: str) -> str | None:
    while True:
        if not os.stat(path).st_mode & 0o001:
            return path
        if path == "/":
            return None
        path = os.path.dirname(path)


def _unheld(path: str) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _seen() -> tuple[set[tuple[int, int]], set[str]]:
    """Return device and inode of every process's root, and the digests of the overlays that processes see."""
    roots, overlaid = set(), set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            info = os.stat(f"/proc/{name}/root")
            with open(f"/proc/{name}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
                mounts = file.read()
        except OSError:
            continue
        roots.add((info.st_dev, info.st_ino))
        overlaid.update(_SOURCE.findall(mounts))
    return roots, overlaid

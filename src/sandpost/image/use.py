"""Images in use: held by running engines, found under running sandboxes, warmed for both, and the rest removed."""

import fcntl
import os
from collections.abc import Collection

from sandpost.image import recipe, tree
from sandpost.model.errors import HostUnfit

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


def prune(image_dir: str, keep: Collection[str]) -> list[str]:
    """Remove the images that are not in `keep`, not held and not the root of any process; return their digests."""
    roots = _process_roots()
    removed = []
    for name in sorted(os.listdir(image_dir)):
        path = os.path.join(image_dir, name)
        if name.startswith(".") or name in keep or not os.path.isdir(path):
            continue
        info = os.stat(os.path.join(path, "rootfs"))
        if (info.st_dev, info.st_ino) in roots or not _unheld(path):
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


def _process_roots() -> set[tuple[int, int]]:
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                info = os.stat(f"/proc/{name}/root")
            except OSError:
                continue
            found.add((info.st_dev, info.st_ino))
    return found

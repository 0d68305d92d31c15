"""File trees: read, made equal from build to build, linked and removed."""

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator

from sandpost.image.recipe import EPOCH, Entry

_CHUNK = 1 << 20


def read(root: str) -> list[Entry]:
    """List everything below `root` with its contents' hash; owners and times are the same everywhere."""
    entries = []
    for path, info in _walk(root):
        name = os.path.relpath(path, root)
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISLNK(info.st_mode):
            entries.append(Entry(name, "l", 0o777, 0, os.readlink(path)))
        elif stat.S_ISDIR(info.st_mode):
            entries.append(Entry(name, "d", mode, 0, ""))
        else:
            entries.append(Entry(name, "f", mode, info.st_size, file_hash(path)))
    return entries


def file_hash(path: str) -> str:
    """Return the SHA-256 of the file at `path` in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def normalise(root: str) -> None:
    """Make owner, times and modes of everything below `root` the same on every machine.

    Only folders, regular files and links stay; nothing is set-uid or set-gid or carries a file capability, and
    everything is readable for uids that are not mapped in a sandbox.
    """
    for path, info in _walk(root):
        if stat.S_ISLNK(info.st_mode):
            os.lchown(path, 0, 0)
        elif stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode):
            os.chown(path, 0, 0)
            executable = stat.S_ISDIR(info.st_mode) or info.st_mode & 0o111
            os.chmod(path, 0o755 if executable else 0o644)
            for name in os.listxattr(path, follow_symlinks=False):
                os.removexattr(path, name, follow_symlinks=False)
        else:
            os.unlink(path)
    # Times last: unlinking above changes those of folders.
    for path, _ in _walk(root):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
    open_to_all(root)
    os.utime(root, (EPOCH, EPOCH))


def link(source: str, target: str) -> None:
    """Make `target` a tree of new folders whose files are hard links to those below `source`, beside what is there.

    Page cache and disk are shared between the trees; neither may be written to.
    """
    shutil.copytree(source, target, symlinks=True, copy_function=_hard_link, dirs_exist_ok=True)


def write(path: str, text: str) -> None:
    """Write a file of mode 0644, by a new inode, and put it on the disk."""
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(f"{path}.new", 0o644)
    os.rename(f"{path}.new", path)


def remove(path: str) -> None:
    """Remove a tree, a file or nothing."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def open_to_all(path: str) -> None:
    """Make a folder or program usable by the unmapped users of sandboxes; there are no secrets in an image."""
    os.chmod(path, 0o755)  # noqa: S103


def unmount_below(path: str) -> None:
    """Detach whatever a killed build left mounted below `path`, before anybody removes through it."""
    prefix = os.path.realpath(path) + "/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ")[4] for line in file]
    for point in reversed([point for point in points if point.startswith(prefix)]):
        subprocess.run(["umount", "--lazy", point], check=True, timeout=10)


def touch_pages(path: str) -> int:
    """Read the file at `path` so that the page cache holds it; return its bytes."""
    total = 0
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            total += len(chunk)
    return total


def _hard_link(source: str, target: str) -> None:
    os.link(source, target, follow_symlinks=False)


def _walk(root: str) -> Iterator[tuple[str, os.stat_result]]:
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            yield path, os.lstat(path)

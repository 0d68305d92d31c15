"""Where images are built and removed: the lock of those who do so, and folders that are nobody's yet."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from sandpost.image import tree

LAYERS = ".base"
"""The folder of what images are put together from."""
_SCRATCH = ".building-"


@contextmanager
def locked(image_dir: str) -> Iterator[int]:
    """Be the only one who builds or removes; yield the lock's descriptor."""
    with open(os.path.join(image_dir, ".lock"), "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@contextmanager
def locked_now(image_dir: str) -> Iterator[bool]:
    """As `locked`, or yield False if somebody else is at work."""
    with open(os.path.join(image_dir, ".lock"), "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def scratch(image_dir: str) -> Iterator[str]:
    """Make a folder for a build's time."""
    path = tempfile.mkdtemp(prefix=_SCRATCH, dir=image_dir)
    tree.open_to_all(path)
    try:
        yield path
    finally:
        # What cannot be removed now, since a step just killed still writes there, the next build removes.
        shutil.rmtree(path, ignore_errors=True)


def sweep(image_dir: str) -> None:
    """Remove what killed builds and removals left. The caller has the lock."""
    for name in os.listdir(image_dir):
        if name.startswith(_SCRATCH):
            tree.unmount_below(os.path.join(image_dir, name))
            tree.remove(os.path.join(image_dir, name))


def remove(image_dir: str, name: str) -> None:
    """Remove what stands at `name`: complete or not there, also if we are killed half-way. The caller has the lock."""
    doomed = os.path.join(image_dir, f"{_SCRATCH}removed-{os.path.basename(name)}")
    os.rename(os.path.join(image_dir, name), doomed)
    tree.remove(doomed)

"""One inotify(7) watch of one file, which the standard library does not have."""

import contextlib
import ctypes
import os

_IN_MODIFY = 0x2
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


def watch(path: str) -> int:
    """Return a descriptor that becomes readable when the file at `path` changes; closing it ends the watch."""
    fd = _libc.inotify_init1(_FLAGS)
    if fd < 0 or _libc.inotify_add_watch(fd, os.fsencode(path), _IN_MODIFY) < 0:
        number = ctypes.get_errno()
        if fd >= 0:
            os.close(fd)
        raise OSError(number, os.strerror(number), path)
    return int(fd)


def drain(fd: int) -> None:
    """Read what has happened, without waiting."""
    with contextlib.suppress(BlockingIOError):
        while os.read(fd, 4096):
            pass

"""Files that others read while they are written, and folders that are somebody's own."""

import contextlib
import os
import stat


def replace(path: str, data: bytes, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Put `data` at `path` in one step: who opens it gets all of the old or all of the new; `OSError` changes nothing.

    `owner` is its uid and gid. Nothing is synced: it holds against our own death, not against the machine's.
    """
    fresh = f"{path}.{os.getpid()}"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            if owner is not None:
                os.fchown(fd, *owner)
            if mode != 0o600:
                os.fchmod(fd, mode)
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
        os.rename(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


def folder(path: str, mode: int, uid: int, gid: int) -> None:
    """Make a folder, or give one that is there this mode and owner. Follows no link. Raises `OSError`."""
    os.close(open_folder(path, mode, uid, gid))


def open_folder(path: str, mode: int, uid: int, gid: int, *, within: int | None = None) -> int:
    """As `folder`, and return its descriptor; `within`: that of the folder that `path` is relative to."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700, dir_fd=within)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=within)
    try:
        found = os.fstat(fd)
        if (found.st_uid, found.st_gid) != (uid, gid):
            os.fchown(fd, uid, gid)
        if stat.S_IMODE(found.st_mode) != mode:
            os.fchmod(fd, mode)
    except OSError:
        os.close(fd)
        raise
    return fd

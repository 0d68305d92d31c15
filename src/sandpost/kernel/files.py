"""Files that others read while they are written."""

import contextlib
import os


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

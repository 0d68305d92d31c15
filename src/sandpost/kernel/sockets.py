"""Listening unix sockets that change hands without a moment of absence."""

import contextlib
import os
import socket


def listen(path: str, kind: socket.SocketKind, *, mode: int, backlog: int, gid: int = -1) -> socket.socket:
    """Listen at `path` in the place of whoever did before: bound beside it and renamed. `gid` -1 leaves the group."""
    fresh = f"{path}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.bind(fresh)
        os.chmod(fresh, mode)
        if gid != -1:
            os.chown(fresh, -1, gid)
        sock.listen(backlog)
        os.rename(fresh, path)
    except BaseException:
        sock.close()
        raise
    return sock


def unlink_own(path: str, inode: int) -> None:
    """Remove the socket at `path` if it is still the one with `inode`: a successor may have put its own there."""
    with contextlib.suppress(FileNotFoundError):
        if os.stat(path).st_ino == inode:
            os.unlink(path)

"""Unix sockets with a name that change hands without a moment of absence."""

import contextlib
import os
import socket
from collections.abc import Callable


def listen(path: str, kind: socket.SocketKind, *, mode: int, backlog: int, gid: int = -1) -> socket.socket:
    """Listen at `path` in the place of whoever did before. `gid` -1 leaves the group."""
    return _bind(path, kind, mode=mode, gid=gid, prepare=lambda sock: sock.listen(backlog))


def receive(path: str, *, mode: int, gid: int) -> socket.socket:
    """Take datagrams at `path` in the place of whoever did before; each tells who sent it (SCM_CREDENTIALS)."""
    # Before anybody can send: the kernel notes a sender while he sends.
    return _bind(
        path, socket.SOCK_DGRAM, mode=mode, gid=gid,
        prepare=lambda sock: sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1),
    )  # fmt: skip


def _bind(
    path: str, kind: socket.SocketKind, *, mode: int, gid: int, prepare: Callable[[socket.socket], None]
) -> socket.socket:
    """Bind beside `path` and rename."""
    fresh = f"{path}.{os.getpid()}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        sock.bind(fresh)
        os.chmod(fresh, mode)
        if gid != -1:
            os.chown(fresh, -1, gid)
        prepare(sock)
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

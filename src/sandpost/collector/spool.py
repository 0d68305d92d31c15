"""Spool files: what was taken out of a stream's FIFO and is not all on the bus yet.

A file has its mark in the first page and the stream's bytes behind it, at their positions. Its length says how far the
stream was taken; what is done with is a hole. One process has it open.
"""

import contextlib
import errno
import os
from collections.abc import Mapping

import msgspec

from sandpost.collector import mark
from sandpost.collector.mark import HEAD, Mark
from sandpost.kernel import files
from sandpost.kernel.calls import punch_hole
from sandpost.model.host import FIFOS
from sandpost.model.names import is_sandbox_id

_PAGE = 4096
_REACHED = "reached"
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


class SpoolFullError(Exception):
    """The file system has no room."""


class Spool:
    """One stream's file. Positions are bytes of the stream. `OSError` is the caller's: the file system failed."""

    __slots__ = ("_fd", "_path", "length", "mark", "used")

    def __init__(self, path: str, fd: int, made: Mark) -> None:
        self.mark = made
        self._path = path
        self._fd = fd
        self.length = 0
        """Bytes of the stream that were taken."""
        self.used = 0
        """Bytes that the file takes."""
        self._look()

    @classmethod
    def make(cls, path: str, tenant: str) -> "Spool":
        """Make the file of a stream of which nothing was taken. Raises `SpoolFullError`, `OSError`."""
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            made = Mark(tenant)
            # In this order: with a byte of the stream there is a mark.
            _write(fd, mark.encode(made))
            os.ftruncate(fd, HEAD)
            return cls(path, fd, made)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def find(cls, path: str) -> "Spool | None":
        """Open what an earlier process left; None if it has no mark, and so nothing. Raises `OSError`."""
        fd = os.open(path, _FLAGS)
        try:
            found = mark.decode(os.pread(fd, HEAD, 0))
            if found is not None:
                return cls(path, fd, found)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        os.unlink(path)
        return None

    def take(self, fifo: int, most: int) -> int | None:
        """Move at most `most` bytes out of `fifo`; return how many, 0 at its end, None if it has none now.

        Raises `SpoolFullError`; then they are in the FIFO still.
        """
        try:
            moved = os.splice(fifo, self._fd, most, offset_dst=HEAD + self.length, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise SpoolFullError from None
            raise
        self._look()
        return moved

    def read(self, position: int, size: int) -> bytes:
        """Return at most `size` bytes of the stream from `position` on."""
        return os.pread(self._fd, size, HEAD + position)

    def free(self, begin: int, end: int) -> int:
        """Give the whole pages between two positions back; return up to where they were given back."""
        first = -(-begin // _PAGE) * _PAGE
        last = end // _PAGE * _PAGE
        if last > first:
            punch_hole(self._fd, HEAD + first, HEAD + last)
            self._look()
        return max(begin, last)

    def save(self) -> None:
        """Write the mark. Its page is there already, so that a full file system is none of its business."""
        _write(self._fd, mark.encode(self.mark))

    def close(self) -> None:
        """Let go of the file, which stays."""
        os.close(self._fd)

    def remove(self) -> None:
        """Remove the file: all of it is done with."""
        os.close(self._fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _look(self) -> None:
        status = os.fstat(self._fd)
        self.length = max(0, status.st_size - HEAD)
        self.used = status.st_blocks * 512


def path_of(folder: str, sandbox_id: str, number: int) -> str:
    """Return the path of the spool of a sandbox's stream."""
    return os.path.join(folder, source_of(sandbox_id, number))


def source_of(sandbox_id: str, number: int) -> str:
    """Return the name of a stream as a source of the bus."""
    return f"{sandbox_id}.{FIFOS[number]}"


def left(folder: str) -> list[tuple[str, int]]:
    """Return the sandbox and number of every stream that has a spool below `folder`. Raises `OSError`."""
    found = []
    for name in sorted(os.listdir(folder)):
        sandbox_id, _, stream = name.partition(".")
        if is_sandbox_id(sandbox_id) and stream in FIFOS:
            found.append((sandbox_id, FIFOS.index(stream)))
    return found


def read_reached(folder: str) -> dict[str, int]:
    """Return what `write_reached` noted; nothing if that cannot be read: more is to be looked at then."""
    try:
        with open(os.path.join(folder, _REACHED), "rb") as file:
            return msgspec.msgpack.decode(file.read(), type=dict[str, int])
    except (OSError, msgspec.MsgspecError):
        return {}


def write_reached(folder: str, reached: Mapping[str, int]) -> None:
    """Note the offset up to which all of a stream stands in marks. Raises `OSError`."""
    files.replace(os.path.join(folder, _REACHED), msgspec.msgpack.encode(reached), 0o600)


def _write(fd: int, blob: bytes) -> None:
    if os.pwrite(fd, blob, 0) != len(blob):
        raise SpoolFullError

"""Sink of one plain file a tenant, `<folder>/<tenant>.log`, with one older `<tenant>.log.1` beside it.

Bounded three ways: a file's size, two files a tenant, and all files together, where those that were not written
for longest go first. A file ends with a whole record always: a write that the disk cut short is taken back, and
a torn end that a killed process left is cut off when the file is opened again.
"""

import contextlib
import os
from collections import OrderedDict

from sandpost.model.names import tenant_name

MAX_FILE = 8 << 20
MAX_TOTAL = 2 << 30
MAX_OPEN = 128
_TORN_LOOK = 64 * 1024


class _Open:
    """A tenant's file that is open for appending."""

    __slots__ = ("fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size


class TenantFiles:
    """The sink. One process at a time writes a folder."""

    def __init__(
        self, folder: str, *, max_file: int = MAX_FILE, max_total: int = MAX_TOTAL, max_open: int = MAX_OPEN
    ) -> None:
        self._folder = folder
        self._max_file = max_file
        self._max_total = max_total
        self._max_open = max_open
        self._buffers: dict[str, list[bytes]] = {}
        self._counts: dict[str, int] = {}
        # Least recently written first, both.
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._total = 0
        self._find()

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return self._total

    def append(self, tenant: str, lines: bytes, count: int) -> None:
        self._buffers.setdefault(tenant, []).append(lines)
        self._counts[tenant] = self._counts.get(tenant, 0) + count

    def flush(self) -> dict[str, int]:
        lost: dict[str, int] = {}
        buffers, self._buffers = self._buffers, {}
        counts, self._counts = self._counts, {}
        for tenant, parts in buffers.items():
            try:
                self._write(tenant, b"".join(parts))
            except OSError:
                lost[tenant] = counts[tenant]
        self._make_room()
        return lost

    def close(self) -> None:
        while self._open:
            self._close_oldest()

    def _find(self) -> None:
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith((".log", ".log.1")) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime, entry.name, status.st_size))
        for _, name, size in sorted(found):
            self._set_size(name, size)

    def _write(self, tenant: str, blob: bytes) -> None:
        name = f"{tenant}.log"
        file = self._opened(tenant, name)
        if file.size and file.size + len(blob) > self._max_file:
            self._rotate(tenant, name)
            file = self._opened(tenant, name)
        written = 0
        try:
            written = os.write(file.fd, blob)
        finally:
            if written != len(blob):
                os.ftruncate(file.fd, file.size)
        if written != len(blob):
            raise OSError("the disk took a part only")
        file.size += written
        self._set_size(name, file.size)

    def _opened(self, tenant: str, name: str) -> _Open:
        file = self._open.get(tenant)
        if file is not None:
            if os.fstat(file.fd).st_nlink:
                self._open.move_to_end(tenant)
                return file
            # Somebody removed it: begin anew, rather than write what nobody can read.
            self._close(tenant)
        while len(self._open) >= self._max_open:
            self._close_oldest()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(os.path.join(self._folder, f"{tenant_name(tenant)}.log"), flags, 0o640)
        try:
            size = _cut_torn_end(fd)
        except OSError:
            os.close(fd)
            raise
        file = self._open[tenant] = _Open(fd, size)
        self._set_size(name, size)
        return file

    def _rotate(self, tenant: str, name: str) -> None:
        self._close(tenant)
        path = os.path.join(self._folder, name)
        os.replace(path, f"{path}.1")
        self._set_size(f"{name}.1", self._sizes[name])
        self._forget(name)

    def _make_room(self) -> None:
        while self._total > self._max_total:
            name = next(iter(self._sizes))
            self._close(name.removesuffix(".1").removesuffix(".log"))
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder, name))
            self._forget(name)

    def _set_size(self, name: str, size: int) -> None:
        self._total += size - self._sizes.get(name, 0)
        self._sizes[name] = size
        self._sizes.move_to_end(name)

    def _forget(self, name: str) -> None:
        self._total -= self._sizes.pop(name, 0)

    def _close(self, tenant: str) -> None:
        file = self._open.pop(tenant, None)
        if file is not None:
            os.close(file.fd)

    def _close_oldest(self) -> None:
        self._close(next(iter(self._open)))


def _cut_torn_end(fd: int) -> int:
    """Cut off what follows the last line end of the file; return its size then."""
    size = end = os.fstat(fd).st_size
    while end:
        begin = max(0, end - _TORN_LOOK)
        found = os.pread(fd, end - begin, begin).rfind(b"\n")
        if found >= 0:
            end = begin + found + 1
            break
        end = begin
    if end != size:
        os.ftruncate(fd, end)
    return end

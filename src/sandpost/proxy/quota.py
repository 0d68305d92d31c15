"""Calls at once and calls a second of each tenant, counted over all workers of the host.

A memory-mapped table: a row a tenant, a column a worker. A worker writes its own column alone and reads all, so
nothing is locked on a call's way. Rows are found by the hash of the name in a bucket of `WAYS`; giving one to a
tenant takes a lock, for a moment. A column belongs to the process that holds its lock file: the kernel lets go
of it when the process dies, and whoever takes it next, or another, sets it to zero.
"""

import array
import contextlib
import fcntl
import hashlib
import mmap
import os

from sandpost.model.errors import TooManyCalls, Unavailable
from sandpost.model.limits import Limits

ROWS = 1 << 13
WAYS = 16
_CELL = 8
_FIELDS = 4
"""Of a column: calls under way, the second of the last call, calls begun in it and in the second before."""
_ROUNDING = 1e-6
_REST_BEFORE_REUSE = 60
"""Seconds that a row has been without a call before another tenant may get it."""


class Seat:
    """One tenant's place in the table, as this worker holds it."""

    __slots__ = ("in_flight", "row", "tag", "tenant")

    def __init__(self, tenant: str, tag: int) -> None:
        self.tenant = tenant
        self.tag = tag
        self.row = -1
        """Index of the row's first cell; -1: the table had no room, this worker counts for itself."""
        self.in_flight = 0


class Quota:
    """The table, and this worker's column in it. One thread."""

    def __init__(self, folder: str, workers: int) -> None:
        # Twice as many columns as workers: during a renewal old and new ones live side by side.
        self._columns = 2 * workers
        self._width = 1 + _FIELDS * self._columns
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"calls-{self._columns}x{_FIELDS}.table")
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = ROWS * self._width * _CELL
        os.ftruncate(self._fd, size)
        self._map = mmap.mmap(self._fd, size)
        self._cells = memoryview(self._map).cast("q")
        self._lock_fd = -1
        self._column = self._claim(folder)
        self._offset = 1 + _FIELDS * self._column
        self._seats: dict[str, Seat] = {}
        self._others = [1 + _FIELDS * n for n in range(self._columns) if n != self._column]

    def close(self) -> None:
        """Give the column back, empty."""
        self._zero(self._column)
        self._cells.release()
        self._map.close()
        os.close(self._fd)
        os.close(self._lock_fd)

    def _claim(self, folder: str) -> int:
        mine = -1
        for column in range(self._columns):
            fd = os.open(os.path.join(folder, f"column-{column}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                continue
            self._zero(column)
            if mine < 0:
                mine, self._lock_fd = column, fd
            else:
                os.close(fd)
        if mine < 0:
            raise Unavailable(f"all {self._columns} columns of the table of calls in {folder} are taken: stop a worker")
        return mine

    def _zero(self, column: int) -> None:
        empty = memoryview(array.array("q", bytes(ROWS * _CELL)))
        for field in range(_FIELDS):
            cells = self._cells[1 + _FIELDS * column + field :: self._width]
            cells[:] = empty

    def begin(self, tenant: str, limits: Limits, now: float) -> Seat:
        """Count a call in, or raise `TooManyCalls`; `now` is of CLOCK_MONOTONIC, in seconds. End it with `end`."""
        seat = self._seats.get(tenant)
        second = int(now)
        cells = self._cells
        if seat is None or (seat.row >= 0 and cells[seat.row] != seat.tag):
            seat = self._sit(tenant, second)
        row = seat.row
        at_once = seat.in_flight
        if row >= 0:
            for offset in self._others:
                at_once += cells[row + offset]
        if at_once >= limits.calls:
            raise TooManyCalls(
                f"tenant `{tenant}` has {limits.calls} calls at once under way, its limit: "
                "wait for one to end, or raise `limits.calls`",
                retry_after=1,
                limit=limits.calls,
                setting="limits.calls",
            )
        if limits.rate:
            self._count_rate(seat, tenant, limits.rate, now)
        elif row >= 0:
            self._note_second(row + self._offset, second)
        seat.in_flight += 1
        if row >= 0:
            cells[row + self._offset] = seat.in_flight
        return seat

    def end(self, seat: Seat) -> None:
        """Count a call out."""
        seat.in_flight -= 1
        row = seat.row
        if row >= 0 and self._cells[row] == seat.tag:
            self._cells[row + self._offset] = seat.in_flight

    def in_flight(self, tenant: str) -> int:
        """Return the tenant's calls under way on all workers."""
        seat = self._seats.get(tenant)
        if seat is None:
            return 0
        at_once = seat.in_flight
        if seat.row >= 0 and self._cells[seat.row] == seat.tag:
            at_once += sum(self._cells[seat.row + offset] for offset in self._others)
        return at_once

    def forget_idle(self) -> None:
        """Let go of the seats of tenants without a call (called now and then, so that they stay few)."""
        if len(self._seats) > ROWS // 4:
            idle = [name for name, seat in self._seats.items() if not seat.in_flight]
            for name in idle:
                del self._seats[name]

    def _note_second(self, cell: int, second: int) -> None:
        cells = self._cells
        behind = second - cells[cell + 1]
        if behind:
            cells[cell + 3] = cells[cell + 2] if behind == 1 else 0
            cells[cell + 2] = 0
            cells[cell + 1] = second

    def _count_rate(self, seat: Seat, tenant: str, rate: int, now: float) -> None:
        """Count a call that begins, unless it is one too many.

        A second's calls fade out over the next one, as if they had come evenly: otherwise twice the rate passes
        where one second ends and the next begins.
        """
        cells, row = self._cells, seat.row
        if row < 0:
            return
        second = int(now)
        begun = before = 0
        for column in range(self._columns):
            cell = row + 1 + _FIELDS * column
            behind = second - cells[cell + 1]
            if behind == 0:
                begun += cells[cell + 2]
                before += cells[cell + 3]
            elif behind == 1:
                before += cells[cell + 2]
        if begun >= rate or begun + before * (1 - now + second) > rate + _ROUNDING:
            raise TooManyCalls(
                f"tenant `{tenant}` has begun {rate} calls within a second, its limit: send fewer, or raise "
                "`limits.rate`",
                retry_after=1,
                limit=rate,
                setting="limits.rate",
            )
        mine = row + self._offset
        self._note_second(mine, second)
        cells[mine + 2] += 1

    def _sit(self, tenant: str, now: int) -> Seat:
        """Find the tenant's row, or give it one."""
        seat = self._seats.get(tenant)
        if seat is None:
            digest = hashlib.blake2b(tenant.encode(), digest_size=8).digest()
            # The lowest bit is set, so that no tag is zero, which means an empty row.
            tag = (int.from_bytes(digest, "little", signed=True)) | 1
            seat = self._seats[tenant] = Seat(tenant, tag)
        bucket = ((seat.tag >> 1) % (ROWS // WAYS)) * WAYS
        rows = [(bucket + way) * self._width for way in range(WAYS)]
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            seat.row = self._find_row(rows, seat.tag, now)
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        if seat.row >= 0:
            self._cells[seat.row + self._offset] = seat.in_flight
        return seat

    def _find_row(self, rows: list[int], tag: int, now: int) -> int:
        cells = self._cells
        for row in rows:
            if cells[row] == tag:
                return row
        oldest, oldest_at = -1, now - _REST_BEFORE_REUSE
        for row in rows:
            if cells[row] == 0:
                oldest = row
                break
            columns = [row + 1 + _FIELDS * n for n in range(self._columns)]
            last = max(cells[cell + 1] for cell in columns)
            if last < oldest_at and not any(cells[cell] for cell in columns):
                oldest, oldest_at = row, last
        if oldest >= 0:
            for cell in range(oldest + 1, oldest + self._width):
                cells[cell] = 0
            cells[oldest] = tag
        return oldest

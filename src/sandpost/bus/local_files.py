"""Where the local bus keeps what, and how its files are walked. Reads only; every call may wait for the disk.

    <folder>/<stream>/<offset of the first record, 20 digits>.seg     frames (`segment`)
    <folder>/<stream>/<the same>.idx                                   its index
    <folder>/.lock                                                     held by the writer

The last segment of a stream may be empty: its name keeps the next offset when all records have gone by age.
"""

import contextlib
import os
import re
from collections.abc import Iterator

from sandpost.bus.batches import stream_name
from sandpost.bus.segment import (
    HEAD_MOST,
    INDEX_STEP,
    Entry,
    Head,
    entries,
    find,
    head_at,
)

LOCK = ".lock"
MAX_OFFSET = 1 << 53
"""What every reader of JSON can count to."""
LONGEST = 16 << 20
"""Bytes of a file beyond which it is none of ours; what is behind is not looked at."""

_NAME = re.compile(r"(\d{20})\.(seg|idx)", re.ASCII)
_WINDOW = 128 * 1024
# Without waiting: a FIFO in a file's place would hold who reads.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def stream_folder(folder: str, stream: str) -> str:
    """Return the folder of a stream; `InvalidName` for what can be none."""
    return os.path.join(folder, stream_name(stream))


def segment_path(stream_folder: str, base: int) -> str:
    return os.path.join(stream_folder, f"{base:020d}.seg")


def index_path(stream_folder: str, base: int) -> str:
    return os.path.join(stream_folder, f"{base:020d}.idx")


def parse_name(name: str) -> tuple[int, bool] | None:
    """Return offset, and whether it is a segment (or an index); None for a file that is not ours."""
    match = _NAME.fullmatch(name)
    if match is None or int(match[1]) >= MAX_OFFSET:
        return None
    return int(match[1]), match[2] == "seg"


def bases(stream_folder: str) -> list[int]:
    """Return the first offsets of a stream's segments, in order; none if it does not exist."""
    try:
        names = os.listdir(stream_folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found[0] for found in map(parse_name, names) if found is not None and found[1])


def open_segment(stream_folder: str, base: int) -> int:
    """Open a segment for reading; `FileNotFoundError` if it has gone."""
    return os.open(segment_path(stream_folder, base), _READ)


def size_of(fd: int) -> int:
    return min(os.fstat(fd).st_size, LONGEST)


def read_index(stream_folder: str, base: int, seed: int) -> list[Entry]:
    """Return what the index of a segment says; nothing if it is missing or wrong."""
    with contextlib.suppress(OSError):
        fd = os.open(index_path(stream_folder, base), _READ)
        try:
            return entries(os.pread(fd, LONGEST // INDEX_STEP * 64, 0), seed) or []
        finally:
            os.close(fd)
    return []


class Walk:
    """Goes through the heads of an open segment, passing over damage.

    After it `position` is behind the last whole frame and `offset` the next record's.
    """

    def __init__(self, fd: int, base: int, seed: int, index: list[Entry] | None = None) -> None:
        """Begin at the file's begin, or at the last entry of `index`, if there is such a frame."""
        self._fd = fd
        self._seed = seed
        self.size = size_of(fd)
        self.position, self.offset = 0, base
        self.trusted = False
        """Whether the entry was right."""
        if index:
            head = head_at(os.pread(fd, HEAD_MOST, index[-1].position), 0, seed)
            if head is not None and head.offset == index[-1].offset:
                self.position, self.offset, self.trusted = index[-1].position, head.offset, True

    def __iter__(self) -> Iterator[tuple[int, Head]]:
        """Yield place and head of each whole frame."""
        window, begin = b"", self.position
        while self.position < self.size:
            head = head_at(window, self.position - begin, self._seed)
            if head is None and self.position + HEAD_MOST > begin + len(window) and begin + len(window) < self.size:
                # Lines that are longer than the window are not read.
                begin = self.position
                window = self._read(begin, _WINDOW)
                head = head_at(window, 0, self._seed)
            if head is None or head.offset != self.offset:
                found = find(self._read(self.position, LONGEST), 0, self.offset, self._seed)
                if found is None:
                    return
                self.position, self.offset, head = self.position + found[0], found[1].offset, found[1]
            if self.position + head.size > self.size:
                return
            yield self.position, head
            self.position, self.offset = self.position + head.size, head.next_offset

    def _read(self, position: int, size: int) -> bytes:
        return os.pread(self._fd, min(size, self.size - position), position)

"""Writes the segments of all streams. Every call may wait for the disk: `local_writer` makes them in its thread.

A file ends with a whole frame always. What a killed process or a full disk leaves of one is cut off; frames that are
whole stay, for a reader may have had them. Damage is left where it is, and the next frame goes into a new segment:
what it was is not known, and readers are told.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sandpost.bus import local_files as files
from sandpost.bus import segment
from sandpost.bus.contract import Batch
from sandpost.bus.retention import Limits, Retention
from sandpost.bus.segment import INDEX_STEP, Entry
from sandpost.model.errors import InvalidName

FILE_MODE = 0o640
FOLDER_MODE = 0o750
"""Who else is of the writer's group may read."""
GAP = 1 << 20
"""Offsets left out when the machine was started anew: of what was written in the last half minute before a crash, which
readers may have had, nothing may be left on the disk, and those offsets shall not name other records."""
_BOOT_SLACK = 2
"""Seconds by which a clock that is set makes the last boot seem another one; a gap too many harms nobody."""
_REMOVALS = 32
_LOOKS = 500
"""Of one `tend`. With one a second 128 MiB/s go, more than comes, and 10,000 streams are looked at in 20 s."""


class Outcome(NamedTuple):
    """How many batches are kept, the offset behind the last of them, and what was in the way of the rest."""

    done: int
    end: int
    error: Exception | None


class _Stream:
    """The end of a stream that was written to in this process. `fd` is -1 while others have the descriptors."""

    __slots__ = ("base", "begun", "fd", "folder", "indexed", "next_offset", "saved", "seed", "size", "time", "unsaved")

    def __init__(self, folder: str, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.fd = -1
        self.next_offset = 0
        self.time = 0
        # The last segment: first offset, bytes, seconds since the epoch.
        self.base = 0
        self.size = 0
        self.begun = 0.0
        # Its index: place of the last entry, entries in the file, and those that are not there yet.
        self.indexed = 0
        self.saved = 0
        self.unsaved: list[Entry] = []


class Appender:
    """All streams below a folder. For one thread of one process. Raises `OSError`; what was written before it stays."""

    def __init__(self, folder: str, *, limits: Limits, open_files: int) -> None:
        self._folder = folder
        self._open_files = open_files
        self._limits = limits
        self._retention = Retention(limits)
        self._streams: dict[str, _Stream] = {}
        # Those with a descriptor, least recently written first.
        self._open: OrderedDict[str, _Stream] = OrderedDict()
        self._lock = -1
        self._boot = 0

    # --- beginning and end ----------------------------------------------------------------------------------

    def open(self) -> None:
        """Lock the folder, made if need be, and count what is there. `BlockingIOError`: another process writes it."""
        os.makedirs(self._folder, FOLDER_MODE, exist_ok=True)
        # A file, not the folder: whoever may read that could lock it.
        lock = os.open(
            os.path.join(self._folder, files.LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._count()
        except OSError:
            os.close(lock)
            raise
        self._lock = lock
        # By two clocks: a part sees no /proc, where the boot's id is.
        self._boot = max(0, int(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)))

    def set_limits(self, limits: Limits) -> None:
        """Keep so much from now on; what is too much goes by `tend`."""
        self._limits = limits
        self._retention.set_limits(limits)

    def close(self) -> None:
        """Let go of all files, and of the lock last. Idempotent."""
        for stream, held in list(self._open.items()):
            self._save_index(held)
            self._close(stream)
        self._streams.clear()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _count(self) -> None:
        for name in os.listdir(self._folder):
            try:
                folder = files.stream_folder(self._folder, name)
            except InvalidName:
                continue
            with contextlib.suppress(NotADirectoryError):
                self._count_stream(name, folder)

    def _count_stream(self, name: str, folder: str) -> None:
        segments: dict[int, os.stat_result] = {}
        indexes: set[int] = set()
        with os.scandir(folder) as entries:
            for entry in entries:
                if (found := files.parse_name(entry.name)) is not None:
                    if found[1]:
                        segments[found[0]] = entry.stat(follow_symlinks=False)
                    else:
                        indexes.add(found[0])
        for base, status in sorted(segments.items()):
            self._retention.put(name, base, status.st_size, status.st_mtime)
        for base in indexes - segments.keys():
            os.unlink(files.index_path(folder, base))

    # --- appending ------------------------------------------------------------------------------------------

    def append(self, stream: str, batches: Sequence[Batch]) -> Outcome:
        """Write batches of a stream in their order."""
        done = end = 0
        try:
            while done < len(batches):
                held = self._ready(stream)
                done += self._append_some(stream, held, batches[done:])
                end = held.next_offset
        except Exception as error:
            # Whatever it was, what is kept must not be written again.
            return Outcome(done, end, error)
        return Outcome(done, end, None)

    def _append_some(self, stream: str, held: _Stream, batches: Sequence[Batch]) -> int:
        """Write as many as the segment takes, and return how many; 0 after a new one was begun."""
        now = time.time()
        if held.size and now - held.begun > self._limits.segment_seconds:
            self._begin(stream, held, held.next_offset)
        position, offset, stamp, indexed = held.size, held.next_offset, held.time, held.indexed
        parts: list[bytes] = []
        # How the segment is after each of the frames, and what is to be put into its index.
        after: list[tuple[int, int, int]] = []
        entries: list[Entry] = []
        for batch in batches:
            if position and position + segment.HEAD_MOST + len(batch.lines) > self._limits.segment_bytes:
                break
            stamp = max(stamp, int(batch.time * 1000))
            if position - indexed >= INDEX_STEP:
                entries.append(Entry(offset, stamp, position))
                indexed = position
            head, lines = segment.frame(
                batch.lines, offset=offset, count=batch.count, time=stamp, source=batch.source, end=batch.end,
                boot=self._boot, seed=held.seed,
            )  # fmt: skip
            parts += (head, lines)
            position, offset = position + len(head) + len(lines), offset + batch.count
            after.append((position, offset, stamp))
        if not parts:
            self._begin(stream, held, held.next_offset)
            return 0
        end = held.size + self._write(stream, held, b"".join(parts))
        done = sum(1 for place, _, _ in after if place <= end)
        if done:
            held.size, held.next_offset, held.time = after[done - 1]
            held.unsaved += [one for one in entries if one.position < held.size]
            held.indexed = held.unsaved[-1].position if held.unsaved else held.indexed
            self._retention.put(stream, held.base, held.size, now)
        if done < len(after):
            self._cut(stream, held)
            if not done:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._save_index(held)
        return done

    def _write(self, stream: str, held: _Stream, blob: bytes) -> int:
        try:
            return os.pwrite(held.fd, blob, held.size)
        except OSError:
            self._cut(stream, held)
            raise

    def _cut(self, stream: str, held: _Stream) -> None:
        """Take back what is behind the last whole frame; if that fails too, the next append mends the file."""
        try:
            os.ftruncate(held.fd, held.size)
        except OSError:
            self._forget(stream)

    def _save_index(self, held: _Stream) -> None:
        """Write entries that are not in the index yet. A hint: if it cannot be written now, then with the next ones."""
        if not held.unsaved:
            return
        blob = b"".join(segment.entry(one, held.seed) for one in held.unsaved)
        place = held.saved * segment.ENTRY
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(files.index_path(held.folder, held.base), flags, FILE_MODE)
            try:
                os.ftruncate(fd, place)
                if os.pwrite(fd, blob, place) == len(blob):
                    held.saved += len(held.unsaved)
                    held.unsaved = []
            finally:
                os.close(fd)

    # --- segments -------------------------------------------------------------------------------------------

    def _ready(self, stream: str) -> _Stream:
        """Return the stream with its last segment open, as it was left."""
        held = self._streams.get(stream)
        if held is None:
            return self._find(stream, 0)
        if held.fd < 0:
            try:
                self._keep_open(stream, held, self._open_last(held.folder, held.base))
            except FileNotFoundError:
                return self._find_again(stream, held)
        status = os.fstat(held.fd)
        if not status.st_nlink or status.st_size != held.size:
            return self._find_again(stream, held)
        self._open.move_to_end(stream)
        return held

    def _find_again(self, stream: str, held: _Stream) -> _Stream:
        """Somebody removed, replaced or cut the segment. What it had was read, perhaps: offsets go on."""
        self._forget(stream)
        left = files.bases(held.folder)
        for base in self._retention.bases(stream):
            if base not in left:
                self._retention.remove(stream, base)
        return self._find(stream, held.next_offset)

    def _find(self, stream: str, least: int) -> _Stream:
        """Take up a stream where its files end, and mend that end; begin one that is not there.

        `least`: what its next offset is at least.
        """
        folder = files.stream_folder(self._folder, stream)
        held = _Stream(folder, segment.seed_of(stream))
        bases = files.bases(folder)
        if not bases:
            self._begin(stream, held, least)
        else:
            held.base = bases[-1]
            self._keep_open(stream, held, self._open_last(folder, held.base))
            try:
                gap = self._mend(held)
                if gap or held.next_offset < least:
                    self._begin(stream, held, max(held.next_offset + gap, least))
            except OSError:
                self._close(stream)
                raise
        self._streams[stream] = held
        return held

    def _mend(self, held: _Stream) -> int:
        """Find where the open segment ends, cut a torn end; return how many offsets to leave out in a new segment."""
        index = files.read_index(held.folder, held.base, held.seed)
        walk = files.Walk(held.fd, held.base, held.seed, index)
        if walk.trusted:
            held.saved, held.indexed = len(index), index[-1].position
        last = None
        for position, last in walk:
            if position - held.indexed >= INDEX_STEP:
                held.unsaved.append(Entry(last.offset, last.time, position))
                held.indexed = position
        held.size, held.next_offset = walk.position, walk.offset
        held.time = last.time if last is not None else 0
        first = segment.head_at(os.pread(held.fd, segment.HEAD_MOST, 0), 0, held.seed)
        now = time.time()
        held.begun = min(now, first.time / 1000) if first is not None else now
        gap = GAP if last is None or abs(last.boot - self._boot) > _BOOT_SLACK else 0
        tail = os.pread(held.fd, walk.size - walk.position, walk.position)
        if tail and segment.is_torn(tail, held.seed):
            os.ftruncate(held.fd, held.size)
        elif tail:
            gap += segment.most_records(len(tail)) + 1
        return gap

    def _begin(self, stream: str, held: _Stream, base: int) -> None:
        """Begin a new segment, the stream's last from now on. The former stays if it is empty: no record is missing."""
        self._save_index(held)
        fd = self._make(held.folder, base)
        self._close(stream)
        held.base, held.size, held.next_offset, held.begun = base, 0, base, time.time()
        held.indexed, held.saved, held.unsaved = 0, 0, []
        self._keep_open(stream, held, fd)
        self._retention.put(stream, base, 0, held.begun)

    @staticmethod
    def _make(folder: str, base: int) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        path = files.segment_path(folder, base)
        try:
            return os.open(path, flags, FILE_MODE)
        except FileNotFoundError:
            os.mkdir(folder, FOLDER_MODE)
            return os.open(path, flags, FILE_MODE)

    @staticmethod
    def _open_last(folder: str, base: int) -> int:
        return os.open(files.segment_path(folder, base), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    def _keep_open(self, stream: str, held: _Stream, fd: int) -> None:
        while len(self._open) >= self._open_files:
            self._close(next(iter(self._open)))
        held.fd = fd
        self._open[stream] = held

    def _close(self, stream: str) -> None:
        held = self._open.pop(stream, None)
        if held is not None:
            os.close(held.fd)
            held.fd = -1

    def _forget(self, stream: str) -> None:
        self._close(stream)
        self._streams.pop(stream, None)

    # --- removing -------------------------------------------------------------------------------------------

    def tend(self) -> None:
        """Remove what is kept no longer, some of it. To be called once a second."""
        now = time.time()
        for _ in range(_REMOVALS):
            found = self._retention.next_to_go(now, _LOOKS)
            if found is None:
                return
            try:
                self._remove(*found)
            except OSError:
                # It is counted no longer until it is written to again: it shall not keep others from being removed.
                self._retention.remove(*found)

    def _remove(self, stream: str, base: int) -> None:
        if self._retention.bases(stream)[-1] == base:
            # Its successor keeps the next offset.
            held = self._ready(stream)
            if held.base == base and not held.size:
                self._retention.put(stream, base, 0, held.begun)
                return
            if held.base == base:
                self._begin(stream, held, held.next_offset)
        self._unlink(stream, files.stream_folder(self._folder, stream), base)

    def _unlink(self, stream: str, folder: str, base: int) -> None:
        for path in (files.segment_path(folder, base), files.index_path(folder, base)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        self._retention.remove(stream, base)

    # --- looking back ---------------------------------------------------------------------------------------

    def positions(self, sources: Mapping[str, str], since: Mapping[str, int]) -> dict[str, int]:
        """Return how far each source came (`contract.Writer.positions`)."""
        wanted: dict[str, set[str]] = {}
        for source, stream in sources.items():
            wanted.setdefault(stream, set()).add(source)
        found: dict[str, int] = {}
        for stream, names in wanted.items():
            found |= self._positions(stream, names, since.get(stream, 0))
        return found

    def _positions(self, stream: str, names: set[str], since: int) -> dict[str, int]:
        folder, seed = files.stream_folder(self._folder, stream), segment.seed_of(stream)
        ends: dict[str, int] = {}
        # From the newest on: who lives has written lately.
        for base in reversed(files.bases(folder)):
            try:
                fd = files.open_segment(folder, base)
            except FileNotFoundError:
                continue
            try:
                index = [one for one in files.read_index(folder, base, seed) if one.offset <= since]
                here = {head.source: head.end for _, head in files.Walk(fd, base, seed, index) if head.source in names}
            finally:
                os.close(fd)
            ends |= here
            names = names - here.keys()
            if not names or base <= since:
                break
        return ends

"""Which segments go, so that a stream's flood shortens nobody's history but its own. Pure.

A stream has its bytes and its age. If all together are too much, the stream that holds most gives its oldest
segment, again and again: whoever holds little loses nothing while another one holds more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes of a stream and of all, and seconds that records are kept: whole segments go, so it is a sixteenth less."""

    stream_bytes: int = 64 << 20
    total_bytes: int = 10 << 30
    seconds: float = 7 * 86400

    @property
    def segment_bytes(self) -> int:
        """Bytes after which a segment is full: 4 MiB, or a sixteenth of what a stream may hold."""
        return min(4 << 20, self.stream_bytes // 16)

    @property
    def segment_seconds(self) -> float:
        """Seconds after which a segment gets no more records.

        A twenty-eighth of the age (6 h): by the hour a thousand tenants who write a line now and then would hold
        168,000 files, each a block of the disk.
        """
        return self.seconds / 28


@dataclass(slots=True)
class _Segment:
    base: int
    size: int
    written: float


class Retention:
    """What is held, and what is too much of it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.total = 0
        """Bytes that all segments take from the disk."""
        self._streams: dict[str, list[_Segment]] = {}
        self._bytes: dict[str, int] = {}
        self._full: set[str] = set()
        self._round: Iterator[str] = iter(())

    def set_limits(self, limits: Limits) -> None:
        """From now on this is too much."""
        self.limits = limits
        self._full = {stream for stream, held in self._bytes.items() if held > limits.stream_bytes}

    def bases(self, stream: str) -> list[int]:
        """Return the first offsets of a stream's segments, in order."""
        return [one.base for one in self._streams.get(stream, [])]

    def bytes_of(self, stream: str) -> int:
        """Return what a stream takes from the disk."""
        return self._bytes.get(stream, 0)

    def put(self, stream: str, base: int, size: int, written: float) -> None:
        """The segment has `size` bytes now, written last at `written` (epoch); a new one is the last of its stream."""
        segments = self._streams.setdefault(stream, [])
        if not segments or segments[-1].base < base:
            segments.append(_Segment(base, 0, written))
        last = segments[-1]
        self._count(stream, _on_disk(size) - _on_disk(last.size))
        last.size, last.written = size, written

    def remove(self, stream: str, base: int) -> None:
        """The segment has gone; one that is not known changes nothing."""
        segments = self._streams.get(stream, [])
        for segment in segments:
            if segment.base == base:
                segments.remove(segment)
                self._count(stream, -_on_disk(segment.size))
                break
        if not segments:
            self._streams.pop(stream, None)

    def next_to_go(self, now: float, look: int) -> tuple[str, int] | None:
        """Return stream and first offset of a segment that has to go; None: there is none among the next `look`.

        It is the oldest of its stream, and not an empty one that is the only one.
        """
        if self._full:
            return self._oldest(next(iter(self._full)))
        if self.total > self.limits.total_bytes:
            return self._oldest(max(self._bytes, key=self._bytes.__getitem__))
        for stream in self._next(look):
            oldest, *later = self._streams[stream]
            if (oldest.size or later) and oldest.written < now - self.limits.seconds:
                return stream, oldest.base
        return None

    def _oldest(self, stream: str) -> tuple[str, int]:
        return stream, self._streams[stream][0].base

    def _next(self, look: int) -> Iterator[str]:
        """Yield the next `look` streams, all of them in turns."""
        for _ in range(min(look, len(self._streams))):
            stream = next(self._round, None)
            if stream is None:
                self._round = iter(list(self._streams))
                stream = next(self._round)
            if stream in self._streams:
                yield stream

    def _count(self, stream: str, more: int) -> None:
        self.total += more
        held = self._bytes[stream] = self._bytes.get(stream, 0) + more
        if not held:
            del self._bytes[stream]
        if held > self.limits.stream_bytes:
            self._full.add(stream)
        else:
            self._full.discard(stream)


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK

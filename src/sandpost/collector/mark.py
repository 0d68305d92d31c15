"""What of a stream outlives the collector besides its bytes: how far it came, and what was dropped. Pure."""

import bisect
import zlib
from typing import Final

import msgspec
from msgspec import field

HEAD: Final = 4096
"""Bytes before a spool's data, a page: a write within one is not parted by a `kill -9`."""
MAX_RANGES: Final = 64
"""Dropped ranges that wait for what was before them; a stream with so many waits for the bus."""
OVER: Final = 0
LOST: Final = 1
REASONS: Final = ("over", "lost")
"""Why lines are dropped: over the tenant's rate; the bus would not take them. Names of the sources that tell."""
_SUM = 4
_SIZE = 2


class Range(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of the stream that were dropped. `torn`: the last of them begin something that goes on behind `end`."""

    begin: int
    end: int
    torn: bool


class Mark(msgspec.Struct, array_like=True):
    """Positions are bytes of the stream, counts are lines, by reason."""

    tenant: str
    kept: int = 0
    """What is before is on the bus, or dropped. May be behind what the bus knows, never ahead."""
    torn: bool = False
    dropped: list[int] = field(default_factory=lambda: [0, 0])
    told: list[int] = field(default_factory=lambda: [0, 0])
    """Of `dropped`, what the bus has the records of. May be behind too."""
    ranges: list[Range] = []
    """Dropped behind `kept`, in their order, none touching the next one."""

    def keep(self, end: int) -> None:
        """The bus has everything before `end` that was not dropped."""
        self.settle(end, torn=False)

    def settle(self, end: int, *, torn: bool) -> None:
        """Everything before `end` is on the bus or dropped."""
        if end > self.kept:
            self.kept, self.torn = end, torn
        while self.ranges and self.ranges[0].begin <= self.kept:
            first = self.ranges.pop(0)
            if first.end > self.kept:
                self.kept, self.torn = first.end, first.torn

    def drop(self, begin: int, end: int, *, torn: bool) -> None:
        """The bytes from `begin` to before `end` are dropped, which were not; some before them are not kept yet.

        What a former process dropped may be behind them.
        """
        if end == begin:
            return
        at = bisect.bisect(self.ranges, begin, key=lambda one: one.begin)
        if at and self.ranges[at - 1].end == begin:
            at -= 1
            begin = self.ranges.pop(at).begin
        if at < len(self.ranges) and self.ranges[at].begin == end:
            behind = self.ranges.pop(at)
            end, torn = behind.end, behind.torn
        self.ranges.insert(at, Range(begin, end, torn))

    @property
    def full(self) -> bool:
        """Whether no further range has room."""
        return len(self.ranges) >= MAX_RANGES


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Mark).decode


def encode(mark: Mark) -> bytes:
    """Return the mark as bytes, at most `HEAD`."""
    body = _encode(mark)
    blob = zlib.crc32(body).to_bytes(_SUM, "big") + len(body).to_bytes(_SIZE, "big") + body
    if len(blob) > HEAD:
        raise ValueError(f"a mark of {len(blob)} bytes")
    return blob


def decode(head: bytes) -> Mark | None:
    """Return the mark at the beginning of `head`; None if there is none."""
    size = int.from_bytes(head[_SUM : _SUM + _SIZE], "big")
    body = head[_SUM + _SIZE : _SUM + _SIZE + size]
    if len(body) != size or not size or zlib.crc32(body) != int.from_bytes(head[:_SUM], "big"):
        return None
    try:
        return _decode(body)
    except msgspec.MsgspecError:
        return None

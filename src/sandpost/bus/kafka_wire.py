"""How records lie in Kafka. Pure.

A Kafka record is a chunk: some records of one batch, as lines. Its key is the stream, its value the lines, its
timestamp the batch's time; the header `sandpost` says who wrote it and where it ends (`Label`). One Kafka record for
each log record would cost four times the processor, and a batch could be torn; so a batch is one chunk, or, if it has
more records than a chunk may have, some in one append, which Kafka does whole or not at all.

An offset of ours is the Kafka record's offset and the line in it: `offset << 12 | line`. So a partition holds 2**41
chunks before an offset outgrows what a reader of JSON can tell apart.

Kafka hands out whole appends ("record batches"), so that the first may begin before the place that was asked for, and
the last may be cut off: what is behind `Contents.next_` is to be asked for again.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import msgspec
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from sandpost.bus.contract import PIECE_BYTES, PIECE_RECORDS, Batch, Missing, Record
from sandpost.bus.kafka_unpack import appends

LINE_BITS = 12
LINES = 1 << LINE_BITS
"""Lines in a chunk, at most."""
HEADER = "sandpost"
VERSION = 1
FAR = 1 << 63
"""Behind every place of a partition."""
EVERYBODY = b""
"""The key of what concerns all streams of a partition. No stream has an empty name."""


class Label(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the header says. `writer` and `number` name a chunk for good: a number is used once and they grow in a
    partition.

    `part`: the chunk's place in its batch, from 0; `end` is the whole batch's.
    """

    version: int
    writer: int
    number: int
    source: str
    end: int
    part: int
    count: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A Kafka record that is ours. `at`: its offset in the partition; `time`: milliseconds since the epoch."""

    at: int
    label: Label
    lines: bytes
    time: int


@dataclass(frozen=True, slots=True)
class Rubbish:
    """A Kafka record with a stream's key that is not ours, or several that cannot be read: `at` to before `next_` in
    the partition."""

    at: int
    next_: int
    why: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Label).decode


@lru_cache(maxsize=16_384)
def partition_of(stream: str, partitions: int) -> int:
    """Return a stream's partition: the one that Kafka's own producers choose for this key."""
    return int(murmur2(stream.encode()) & 0x7FFFFFFF) % partitions


def offset_of(at: int, line: int = 0) -> int:
    """Return our offset of a line of the Kafka record at `at`."""
    return at << LINE_BITS | line


def place_of(offset: int) -> tuple[int, int]:
    """Return the Kafka record's offset and the line, of an offset of ours."""
    return offset >> LINE_BITS, offset & (LINES - 1)


def parts(batch: Batch) -> Iterator[tuple[bytes, int]]:
    """Yield the lines of each chunk that a batch becomes, and how many they are."""
    if batch.count <= LINES:
        yield batch.lines, batch.count
        return
    lines = batch.lines.split(b"\n")[:-1]
    for first in range(0, len(lines), LINES):
        some = lines[first : first + LINES]
        yield b"\n".join(some) + b"\n", len(some)


def header(label: Label) -> list[tuple[str, bytes]]:
    """Return the headers of a chunk."""
    return [(HEADER, _encode(label))]


def chunk(at: int, time: int, value: bytes | None, headers: list[tuple[str, bytes | None]]) -> Chunk | Rubbish:
    """Return what a Kafka record with a stream's key is; whatever it holds, nothing is raised."""
    encoded = next((text for name, text in headers if name == HEADER), None)
    if encoded is None or value is None:
        return Rubbish(at, at + 1, "what was written there was not written by Sandpost")
    try:
        label = _decode(encoded)
    except (msgspec.DecodeError, ValueError):
        return Rubbish(at, at + 1, "what was written there cannot be read")
    if label.version != VERSION:
        return Rubbish(at, at + 1, "what was written there was written by another version of Sandpost")
    if not 0 < label.count <= LINES or value.count(b"\n") != label.count or not value.endswith(b"}\n"):
        return Rubbish(at, at + 1, "what was written there is damaged")
    return Chunk(at, label, value, time)


class Contents:
    """The records of a fetched piece from `at` on, in order. `next_` is right when all were taken.

    `key`: take records of this key alone; without one all that have a key. `stop`: none from there on, which are not
    unpacked either: of all that is done to find history this costs the most. `skipped`: records without a key of ours,
    somebody else's.
    """

    def __init__(self, data: bytes, at: int, key: bytes | None = None, stop: int = FAR) -> None:
        self.next_ = at
        self.skipped = 0
        self._data = data
        self._key = key
        self._stop = stop

    def __iter__(self) -> Iterator[tuple[bytes, Chunk | Rubbish]]:
        wanted = self._key
        for append in appends(self._data):
            if self.next_ >= self._stop:
                return
            if append.control:
                self.next_ = max(self.next_, append.next_)
                continue
            try:
                for record in append:
                    if record.offset < self.next_:
                        continue
                    if record.offset >= self._stop:
                        self.next_ = self._stop
                        return
                    key = record.key
                    if not key:
                        self.skipped += 1
                    elif wanted is None or key == wanted:
                        yield key, chunk(record.offset, record.timestamp, record.value, record.headers)
                    self.next_ = record.offset + 1
            except (KafkaError, ValueError):
                # The broker has checked it when it was written: its disk has changed it since, or a decoder is missing
                # here.
                yield EVERYBODY, Rubbish(self.next_, append.next_, "what was written there is damaged")
            self.next_ = max(self.next_, append.next_)


def values(data: bytes, at: int) -> tuple[list[bytes], int]:
    """Return the values of a fetched piece of the index, and the place behind it; what is damaged is left out."""
    found: list[bytes] = []
    following = at
    for append in appends(data):
        if not append.control:
            with contextlib.suppress(KafkaError, ValueError):
                found += [record.value for record in append if record.offset >= at and record.value is not None]
        following = max(following, append.next_)
    return found, following


def records(what: Chunk, first: int = 0) -> list[Record]:
    """Return a chunk's records from line `first` on."""
    base = what.at << LINE_BITS
    lines = what.lines.split(b"\n")
    return [Record(base + line, lines[line]) for line in range(first, len(lines) - 1)]


def pieces(found: list[Record | Missing]) -> Iterator[list[Record | Missing]]:
    """Cut what was found into what a reader gets at a time."""
    piece: list[Record | Missing] = []
    size = 0
    for one in found:
        length = len(one.line) + 1 if isinstance(one, Record) else 0
        if piece and (len(piece) >= PIECE_RECORDS or size + length > PIECE_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(one)
        size += length
    if piece:
        yield piece


class Seen:
    """What a reader has had, so that what is in the topic twice is told once: after a producer was retried in doubt
    (`writer`, `number`), and after a writer that died was followed by one that sent the same again (`source`, `end`).
    Bounded: the last to come stay.
    """

    LIMIT = 1_000

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._ends: dict[str, tuple[int, int]] = {}

    def again(self, label: Label) -> bool:
        """Note a chunk; return whether it was had before."""
        place = (label.end, label.part)
        if label.number <= self._numbers.get(label.writer, -1):
            return True
        if label.source and place <= self._ends.get(label.source, (-1, 0)):
            return True
        self._numbers[label.writer] = label.number
        if label.source:
            # Taken out and put in again: the first one is the one longest not heard of.
            self._ends.pop(label.source, None)
            self._ends[label.source] = place
            if len(self._ends) > self.LIMIT:
                del self._ends[next(iter(self._ends))]
        if len(self._numbers) > self.LIMIT:
            del self._numbers[next(iter(self._numbers))]
        return False

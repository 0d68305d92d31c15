"""What a driver of the bus does. The drivers are siblings of this module: `local`, `kafka`.

A bus holds streams of records. A stream has one writer (the collector of a host; with `kafka` one a host) and any
number of readers. A record is one line of JSON without its line end, an object that ends with `}`; writers never parse
it, and readers get it back byte for byte. What both drivers promise of offsets: of one stream they grow strictly, gaps
are allowed; an offset names the same record for as long as that is kept, and never another one; they stay below 2**53,
so that every reader of JSON has them exactly.

Exactly once: a batch says where in its source it ends (`Batch.end`). After a crash the writer asks `positions` how far
each source came, and goes on from there. What a reader gets twice all the same (Kafka, after a producer was retried),
the driver drops by source and end.
"""

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

MAX_BATCH = 1 << 19
"""Below what a Kafka that nobody has set up takes as one message (1 MiB), with what is written around it: one that it
never takes would stand in the way of all behind it."""
MAX_SOURCE = 40
PIECE_RECORDS = 1000
PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records of one stream from one source, in their order. `sandpost.bus.batches.check` says what is none.

    `lines`: `count` (1 or more) records, each with its line end; at most `MAX_BATCH` bytes.
    `source`: who made them (`[a-z0-9.-]{1,40}`, such as a sandbox's id and stream); empty if it can neither be asked
    again nor go on.
    `end`: bytes of the source up to the end of what these records were made from; grows strictly for a source.
    `time`: seconds since the epoch of the last record, so that whoever asks for what came since a moment misses
    nothing of a batch that spans it; never used to decide which record comes first.
    """

    stream: str
    source: str
    end: int
    lines: bytes
    count: int
    time: float


class Writer(Protocol):
    """Takes batches, in one event loop. One process at a time writes a stream: with `local` a second one is refused by
    `open`; with `kafka` every host has a writer, and that no two of a host write is the caller's to see to (sources are
    the host's own).
    """

    @property
    def problem(self) -> str:
        """Why something that was taken cannot be kept now, and what to do; empty if all can.

        It may be of a single stream, while `kept` goes on for the others.
        """

    async def open(self) -> None:
        """Find what is there. Raises `BusError` if this can never write (another writer, no permission). A bus that is
        away (`kafka`) is none of that: `open` returns, and `kept` and `problem` say so.
        """

    def append(self, batches: Sequence[Batch]) -> None:
        """Take batches, all or none; never waits. `ValueError` for more than `room` or for what is no batch: a
        programming error.
        """

    def room(self, stream: str) -> int:
        """Return the bytes of lines that may be appended to `stream` now.

        What is bounded is here, for each stream and for all together, so that one that cannot be written does not take
        the room of the others; what waits is the caller's (the spool). `MAX_BATCH` fits if nothing waits and the bus is
        there; else it fits later, and `kept` says when to ask again.
        """

    async def kept(self) -> Mapping[str, int]:
        """Wait until something that was taken is kept, and return how far each source came since the last call.

        Kept means with `local` written to the file, so that it survives any death but the machine's, with `kafka`
        acks=all. Batches without a source end the wait too, and are not in what is returned. Raises `BusError` once for
        every try that could keep nothing, and when the writer is closed; what was taken stays taken and is tried again.
        Cancelled it loses nothing: the next call returns it. One caller at a time.
        """

    def reached(self) -> Mapping[str, int]:
        """Return, of each stream of which something was kept since the last call, the offset behind the last of it: the
        `since` of `positions` after a crash. To be noted down together with what `kept` said, of all streams.
        """

    async def positions(self, sources: Mapping[str, str], since: Mapping[str, int]) -> Mapping[str, int]:
        """Return how far each source came; one of which nothing is kept is missing.

        `sources`: the stream of each, since all streams together may be too much to look at; what a source wrote to
        another stream is not found. `since`: for a stream an offset from which on it is enough to look; a stream that
        is missing is looked at whole. Raises `BusError`. With `kafka` many streams lie in one partition in the order in
        which they were kept, so that `since` of one helps its neighbours: it must be what `reached` said, of all.
        """

    async def close(self) -> None:
        """Keep what was taken, for 5 s at most, and let go."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was written, and its place."""

    offset: int
    line: bytes


@dataclass(frozen=True, slots=True)
class Missing:
    """Records that are no longer, or not readable: offsets `first` to before `next_`. `why` is said to who reads.

    Where both are 0 a stream has begun anew (`kafka`), and how many are missing is not known.
    """

    first: int
    next_: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where reading begins; none is set: at the end, what comes from now on. `ValueError` for nonsense.

    `offset`: at that record, or at the next one if it is in a gap; before the first that is kept, `Missing` comes
    first; behind the end, at the end.
    `tail`: at the last so many records, those that turn out to be unreadable counted.
    `since`: at the first batch of that time (seconds since the epoch) or later; where the clock was set back, perhaps
    earlier, never later. If that is the first one that is kept and others were before it, `Missing` comes first.
    `tail` and `since` together: at whichever of both places is later. `offset` stands alone.
    """

    offset: int | None = None
    tail: int | None = None
    since: float | None = None

    def __post_init__(self) -> None:
        if self.offset is not None and (self.tail is not None or self.since is not None):
            raise ValueError("a stream is read from an offset, or from its last records, a time or both")
        for name, number in (("offset", self.offset), ("tail", self.tail)):
            if number is not None and number < 0:
                raise ValueError(f"`{name}` is {number}: it counts from 0")
        if self.since is not None and math.isnan(self.since):
            raise ValueError("`since` is not a number")


class Reader(Protocol):
    """Reads streams, in one event loop. Any number of them, where the files may be read or the brokers reached."""

    def follow(self, stream: str, start: Start) -> AsyncGenerator[Sequence[Record | Missing], None]:
        """Yield what is kept from `start` on and then what comes, without gap or double.

        In pieces of at most `PIECE_RECORDS` and, but for a single larger record, `PIECE_BYTES` of lines. What is new is
        told by the driver, never found by polling. A stream that has never been written to waits for its first record.
        Once, and only then, a piece is empty: all that was kept when reading began has been told by then, or cannot be.
        However long that takes, nothing else says so: until then more of it may come, at any time.
        A reader that is slow holds nothing in memory: it reads from what is kept, and gets a `Missing` for what went
        before it came to it. Raises `InvalidName` at once for what cannot be a stream, `BusError` if the bus is away
        for longer than the driver's patience. Ends when it is closed (`aclose`), and by itself when the reader is.
        """

    async def end(self, stream: str) -> int:
        """Return an offset behind all records that are kept of a stream, and not behind any to come: with `local` that
        of the next one, 0 if there never was any; with `kafka` that of the next one of its partition. Raises
        `InvalidName`, `BusError`.
        """

    async def close(self) -> None:
        """End all that follow, each when it would next wait or read."""

"""What a driver of the bus does. The drivers are siblings of this module: `local`, `kafka`.

A bus holds streams of records. A stream has one writer (the collector of a host) and any number of readers. A record
is one line of JSON without its line end, an object that ends with `}`; writers never parse it, and readers get it back byte
for byte. What both drivers promise of offsets: of one stream they grow strictly, gaps are allowed; an offset names the
same record for as long as that is kept.

Exactly once: a batch says where in its source it ends (`Batch.end`). After a crash the writer asks `positions` how far
each source came, and goes on from there. What a reader gets twice all the same (Kafka, after a producer was retried), the
driver drops by source and end.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

SYSTEM = ".system"
"""The stream of the platform's own records. No tenant's name begins with a dot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records of one stream from one source, in their order.

    `lines`: `count` (1 or more) records, each with its line end; at most `MAX_BATCH` bytes.
    `source`: who made them (`[a-z0-9.-]{1,40}`, such as a sandbox's id and stream); empty if it can neither be asked again nor go on.
    `end`: bytes of the source up to the end of what these records were made from; grows strictly for a source.
    `time`: seconds since the epoch of the first record; never used to decide which record comes first.
    """

    stream: str
    source: str
    end: int
    lines: bytes
    count: int
    time: float


MAX_BATCH = 1 << 20


class Writer(Protocol):
    """Takes batches. One process at a time writes a bus's stream; a second one is refused by `open`."""

    async def open(self) -> None:
        """Find what is there, mend a torn end. Raises `BusError` if this can never write (another writer, no permission)."""

    def append(self, batches: Sequence[Batch]) -> None:
        """Take batches; never waits. More than `room()` bytes is a programming error."""

    def room(self) -> int:
        """Return the bytes that may be appended now: what is bounded is here, what waits is the caller's (the spool)."""

    async def kept(self) -> Mapping[str, int]:
        """Wait until something that was taken is kept as the driver promises (`local`: written to the file, so that it survives any death but
        the machine's; `kafka`: acks=all), and return how far each source of it came since the last call. Raises `BusError` while
        the bus is away; what was taken stays taken and is tried again."""

    async def positions(self, sources: Collection[str], since: Mapping[str, int]) -> Mapping[str, int]:
        """Return how far each of `sources` came; one of which nothing is kept is missing.

        `since`: for a stream an offset from which on it is enough to look; a stream that is missing is looked at whole.
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
    """Records that are no longer, or not readable: `first` to before `next_` (offsets). `why` is a sentence for the reader of the stream."""

    first: int
    next_: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where reading begins: exactly one is set. None of them: at the end, what comes from now on.

    `offset`: at that record; before the first that is kept, `Missing` comes first; behind the end, at the end.
    `tail`: at the last so many records. `since`: at the first record of that time (seconds since the epoch) or later.
    """

    offset: int | None = None
    tail: int | None = None
    since: float | None = None


class Reader(Protocol):
    """Reads streams. Any number of them, in any process that may read the files or reach the brokers."""

    def follow(self, stream: str, start: Start) -> AsyncIterator[Sequence[Record | Missing]]:
        """Yield what is kept from `start` on and then what comes, without gap or double, in pieces of at most 1,000 records or 256 KiB.

        Told by the driver, never by polling. A stream that has never been written to waits for its first record. A reader that is slow
        holds nothing in memory: it reads from what is kept, and gets a `Missing` for what went before it came to it.
        Raises `BusError` if the bus is away for longer than the driver's patience. Ends when it is closed (`aclose`).
        """

    async def close(self) -> None:
        """End all that follow."""

"""The streams that the collector drains, and whose they are."""

import contextlib
import os
from collections import deque
from typing import TYPE_CHECKING, Final

from sandpost.collector.budget import READ_FACTOR, Bucket
from sandpost.collector.spool import Spool, source_of
from sandpost.logs import bunyan, records
from sandpost.logs.drops import Drops, over_rate
from sandpost.logs.frames import FrameCutter
from sandpost.logs.lines import LineCutter
from sandpost.logs.said import Decoder

if TYPE_CHECKING:
    from asyncio import Handle, TimerHandle

    from sandpost.collector.mark import Range

STREAMS: Final = 3
"""Standard output, standard error, frames: the order of `Hold` and `Streams`."""
_FRAMES = 2
_MIN_READ_CAPACITY = 256 * 1024


class Tenancy:
    """What all sandboxes of one tenant share here."""

    def __init__(self, tenant: str, rate: int, now: float) -> None:
        self.tenant = tenant
        self.read = Bucket(0, 0, now)
        self.keep = Bucket(0, 0, now)
        self.over_reason = ""
        self.stalled_since: float | None = None
        """Since when the bus does not take all."""
        self.lost = Drops()
        """Lines that were lost and are in no stream's count."""
        self.sandboxes: set[str] = set()
        self.paused: list[Stream] = []
        self.used_at = now
        self.own_rate = False
        """Whether the rate is this tenant's own rather than the host's."""
        self.set_rate(rate, now)

    def set_rate(self, rate: int, now: float) -> None:
        """Keep `rate` bytes a second from now on, with a burst of one second; 0: all."""
        capacity = max(_MIN_READ_CAPACITY, rate)
        self.read = Bucket(rate * READ_FACTOR, capacity, now)
        self.keep = Bucket(rate, rate, now)
        self.over_reason = over_rate(rate)


class Stream:
    """One stream of a sandbox: FIFO, spool, and how far records were made of it. Owns what it holds."""

    __slots__ = (
        "again", "ahead", "appended", "counted", "decoder", "drops", "end_delay", "ended", "fd", "fed", "freed",
        "number", "partial_at", "partial_since", "passing", "raw", "ready", "rest", "sandbox", "source", "spool",
        "stalled_since", "taken_at", "telling",
    )  # fmt: skip

    def __init__(self, sandbox: "Sandbox", number: int) -> None:
        self.sandbox = sandbox
        self.number = number
        self.source = source_of(sandbox.id, number)
        self.raw = number != _FRAMES
        """Whether programs write to it past our runtime."""
        # The FIFO's read end; -1: none.
        self.fd = -1
        self.ended = True
        self.end_delay = 1.0
        # When something was last taken out of the FIFO; while it is left alone, what ends that.
        self.taken_at = 0.0
        self.rest: TimerHandle | None = None
        # The spool; None until something is said. What it takes as counted in all; up to where it was given back.
        self.spool: Spool | None = None
        self.counted = 0
        self.freed = 0
        # Records: whether it is known where to go on; bytes that the decoder has; dropped ranges that it will come to;
        # end of the last batch on its way; since when an unfinished record is there, and where; since when the bus
        # takes nothing.
        self.ready = True
        self.decoder: Decoder = self._decoder(0, torn=False)
        self.fed = 0
        self.ahead: deque[Range] = deque()
        self.appended = 0
        self.partial_since: float | None = None
        self.partial_at = 0
        self.stalled_since: float | None = None
        self.passing: Decoder | None = None
        """Counts what is lost past the spool, until something is put there again."""
        self.again: Handle | None = None
        # By reason: lines that are to be told; lines that were told, or are on their way.
        self.drops = (Drops(), Drops())
        self.telling = [0, 0]

    def attach(self, fd: int) -> None:
        """Take over a read end, in the place of what was there."""
        self.close()
        os.set_blocking(fd, False)
        self.fd = fd
        self.ended = False

    def read(self, size: int) -> bytes | None:
        """Take at most `size` bytes past the spool; empty at the end (no writer now), None if there is nothing yet."""
        try:
            return os.read(self.fd, size)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def counter(self, *, torn: bool) -> Decoder:
        """Return what counts the lines in bytes of this stream; `torn`: they begin in a line that counts already."""
        return self._decoder(0, torn=torn)

    def begin(self, position: int, *, torn: bool) -> None:
        """Go on making records at a position where the decoder may begin."""
        self.decoder = self._decoder(position, torn=torn)
        self.fed = position

    @property
    def in_flight(self) -> bool:
        """Whether the bus has not said yet that it keeps all that it was given."""
        return self.spool is not None and (not self.ready or self.appended > self.spool.mark.kept)

    @property
    def undone(self) -> int:
        """Bytes of which no records were made yet."""
        return 0 if self.spool is None else self.spool.length - self.fed

    def close(self) -> None:
        """Let go of the FIFO."""
        if self.fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self.fd)
        self.fd = -1
        self.ended = True

    def _decoder(self, position: int, *, torn: bool) -> Decoder:
        if not self.raw:
            return FrameCutter(position, torn=torn)
        return LineCutter(bunyan.ERROR if self.number else bunyan.INFO, position, torn=torn)


class Sandbox:
    """One sandbox's streams. `tenancy` is None until it is assigned."""

    def __init__(self, sandbox_id: str) -> None:
        self.id = sandbox_id
        self.tenancy: Tenancy | None = None
        self.scribe: records.Scribe | None = None
        self.streams = [Stream(self, number) for number in range(STREAMS)]
        self.finish_by: float | None = None
        """Set when the sandbox is gone: read what is left until then."""
        self.finished = False
        """Nothing more is read."""

    @property
    def ended(self) -> bool:
        """Whether no stream has a writer any more."""
        return all(stream.ended for stream in self.streams)

    @property
    def attached(self) -> bool:
        """Whether it has FIFOs."""
        return any(stream.fd >= 0 for stream in self.streams)

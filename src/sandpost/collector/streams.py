"""The streams that the collector drains, and whose they are."""

import contextlib
import os
from typing import Final

from sandpost.collector.budget import READ_FACTOR, Bucket, Drops
from sandpost.logs import bunyan, records
from sandpost.logs.frames import FrameCutter
from sandpost.logs.lines import LineCutter
from sandpost.logs.said import Decoder

STREAMS: Final = 3
"""Standard output, standard error, frames: the order of `Hold` and `Streams`."""
_MIN_READ_CAPACITY = 256 * 1024


class Tenancy:
    """What all sandboxes of one tenant share here."""

    def __init__(self, tenant: str, rate: int, now: float) -> None:
        self.tenant = tenant
        self.read = Bucket(0, 0, now)
        self.keep = Bucket(0, 0, now)
        self.over = Drops("")
        self.unwritten = Drops("the log cannot be written")
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
        self.over.reason = records.over_rate(rate)


class Stream:
    """One FIFO's read end, which this object owns, with its decoder."""

    __slots__ = ("decoder", "end_delay", "ended", "fd", "partial_since", "sandbox")

    def __init__(self, sandbox: "Sandbox", fd: int, decoder: Decoder) -> None:
        os.set_blocking(fd, False)
        self.sandbox = sandbox
        self.fd = fd
        self.decoder = decoder
        self.partial_since: float | None = None
        self.ended = False
        self.end_delay = 1.0

    def read(self, size: int) -> bytes | None:
        """Read at most `size` bytes; empty at the end (no writer now), None if there is nothing yet."""
        try:
            return os.read(self.fd, size)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def close(self) -> None:
        """Close the descriptor."""
        with contextlib.suppress(OSError):
            os.close(self.fd)


class Sandbox:
    """One sandbox's streams. `tenancy` is None until it is assigned."""

    def __init__(self, sandbox_id: str, fds: list[int]) -> None:
        self.id = sandbox_id
        self.tenancy: Tenancy | None = None
        decoders: tuple[Decoder, ...] = (LineCutter(bunyan.INFO), LineCutter(bunyan.ERROR), FrameCutter())
        self.streams = [Stream(self, fd, decoder) for fd, decoder in zip(fds, decoders, strict=True)]
        self.finish_by: float | None = None
        """Set when the sandbox is gone: read what is left until then."""

    @property
    def ended(self) -> bool:
        """Whether no stream has a writer any more."""
        return all(stream.ended for stream in self.streams)

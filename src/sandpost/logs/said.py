"""What a decoder of a sandbox's stream yields, and the contract of all decoders."""

from typing import NamedTuple, Protocol


class Said(NamedTuple):
    """One record's worth of output: still bytes of a stranger, bounded by its decoder.

    `end`: bytes of the stream up to where the next record can begin; grows strictly from record to record.
    """

    level: int
    req_id: str | None
    text: bytes
    end: int
    lines: int = 1
    """How many of the program's it stands for: what tells of the runtime's own losses stands for those."""
    trace_id: str | None = None


class Decoder(Protocol):
    """Cuts one stream into records. Never raises, whatever it is fed; holds a bounded number of bytes.

    However a stream's bytes are split over calls of `feed`, the records are the same. And a fresh decoder that begins
    at `end` (with `torn`), or at a record's `end` (without), makes the same records of what follows there.
    """

    end: int
    """Bytes of the stream up to the end of the last record, or of what was left out since."""
    torn: bool
    """Whether `end` may lie inside something of which the beginning was skipped: its rest is left out too."""
    forged: int
    """How often bytes that are no record were left out; whoever reads it may set it back to 0."""

    @property
    def pending(self) -> bool:
        """Whether an unfinished record is held."""

    def feed(self, data: bytes) -> list[Said]:
        """Take the stream's next bytes; return the records that they finish."""

    def skip(self, data: bytes) -> int:
        """Take the stream's next bytes without making records of them; return how many lines are lost with them.

        An unfinished record is lost, too; it counts where its rest is left out.
        """

    def flush(self) -> list[Said]:
        """Return the unfinished record as it is; what follows in the stream begins another."""

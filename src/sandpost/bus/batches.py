"""What may be a stream and a batch, and how a record's line gets its offset. Pure, for all drivers."""

import re

from sandpost.bus.contract import MAX_BATCH, MAX_SOURCE, Batch
from sandpost.model.names import SYSTEM, tenant_name

_SOURCE = re.compile(rf"[a-z0-9.-]{{0,{MAX_SOURCE}}}", re.ASCII)
_MAX_NUMBER = 1 << 63


def stream_name(text: str) -> str:
    """Return `text` if it can name a stream, else raise `InvalidName` that says what may."""
    return text if text == SYSTEM else tenant_name(text)


def check(batch: Batch) -> None:
    """Raise `ValueError` (or `InvalidName`) for what is no batch.

    Line ends are counted, since each is a record's offset. A byte that no UTF-8 has is refused: drivers may mark their
    own places with it, so that no text of a tenant can look like one.
    """
    stream_name(batch.stream)
    if _SOURCE.fullmatch(batch.source) is None:
        raise ValueError(f"{batch.source!r} is no source")
    if not 0 < len(batch.lines) <= MAX_BATCH:
        raise ValueError(f"a batch has 1 to {MAX_BATCH} bytes, not {len(batch.lines)}")
    if batch.lines[-1] != 0x0A or batch.lines.count(b"\n") != batch.count:
        raise ValueError(f"a batch of {batch.count} records has {batch.lines.count(10)} line ends, or none at its end")
    if b"\xff" in batch.lines:
        raise ValueError("a record is UTF-8")
    if not 0 <= batch.end < _MAX_NUMBER:
        raise ValueError(f"{batch.end} is no position in a source")
    if not 0 <= batch.time < _MAX_NUMBER / 1000:
        raise ValueError(f"{batch.time} is no time")


def with_offset(line: bytes, offset: int) -> bytes:
    """Return the record `line` with a last field `offset`; it must not have one. `ValueError` if it is no object."""
    if not line.endswith(b"}"):
        raise ValueError("a record is a JSON object, without its line end")
    rest = line[:-1]
    comma = b"" if rest.rstrip().endswith(b"{") else b","
    return b'%b%b"offset":%d}' % (rest, comma, offset)

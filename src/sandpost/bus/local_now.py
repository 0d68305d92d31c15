"""What a stream of the local bus holds at this moment, for who does not follow it. Waits for the disk."""

from collections.abc import Iterator

from sandpost.bus.contract import Record, Start
from sandpost.bus.local_pieces import patiently, read, stream_at
from sandpost.bus.local_places import begin


def read_now(folder: str, stream: str, *, tail: int = 1 << 30) -> Iterator[Record]:
    """Yield the last `tail` records of a stream that can be read. Raises `InvalidName`, `OSError`."""
    where = stream_at(folder, stream)
    items, place = begin(where, Start(tail=tail))
    while place is not None:
        yield from (item for item in items if isinstance(item, Record))
        items, place = read(where, place, patiently)
        if not items:
            return

"""Numbered records, and readers of them, for tests of the bus."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Any

from sandpost.bus.contract import Batch, Missing, Reader, Record, Start, Writer

Items = list[Record | Missing]
PATIENCE = 30.0


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def line(number: int, size: int = 0) -> bytes:
    """Return a record with its line end, of at least `size` bytes."""
    text = json.dumps({"n": number, "pad": ""}).encode()
    return text[:-2] + b"x" * (size - len(text) - 1) + b'"}\n'


def number_of(item: Record | Missing) -> int:
    """Return a record's number; its line must be as `line` made it."""
    assert isinstance(item, Record), item
    number = int(json.loads(item.line)["n"])
    assert item.line + b"\n" == line(number, len(item.line) + 1)
    return number


def batch(
    stream: str,
    numbers: Sequence[int],
    *,
    source: str = "s.1",
    size: int = 0,
    at: float | None = None,
    end: int | None = None,
) -> Batch:
    """Return a batch of records `numbers`; without `end` its source has as many bytes as the last number, and one."""
    return Batch(
        stream=stream,
        source=source,
        end=numbers[-1] + 1 if end is None else end,
        lines=b"".join(line(number, size) for number in numbers),
        count=len(numbers),
        time=time.time() if at is None else at,
    )


async def keep(writer: Writer, *batches: Batch) -> None:
    """Append, and wait until all is kept. Every batch must have a source."""
    ends = {one.source: one.end for one in batches}
    for one in batches:
        while writer.room(one.stream) < len(one.lines):
            for source, end in (await _kept(writer)).items():
                if ends.get(source) == end:
                    del ends[source]
        writer.append([one])
    while ends:
        for source, end in (await _kept(writer)).items():
            if ends.get(source) == end:
                del ends[source]


async def _kept(writer: Writer) -> dict[str, int]:
    async with asyncio.timeout(PATIENCE):
        return dict(await writer.kept())


async def take(pieces: AsyncGenerator[Sequence[Record | Missing], None], count: int) -> Items:
    """Return the next items, in whole pieces, until there are `count`."""
    items: Items = []
    async with asyncio.timeout(PATIENCE):
        while len(items) < count:
            items += await anext(pieces)
    return items


async def told(pieces: AsyncGenerator[Sequence[Record | Missing], None]) -> Items:
    """Return what comes before the mark that all which was there has been told."""
    items: Items = []
    async with asyncio.timeout(PATIENCE):
        while piece := await anext(pieces):
            items += piece
    return items


async def all_of(pieces: AsyncGenerator[Sequence[Record | Missing], None]) -> Items:
    """Return all that comes until it ends."""
    return [item async for items in pieces for item in items]


async def read(reader: Reader, stream: str, start: Start, count: int) -> Items:
    """Return what comes from `start` on, until there are `count` items; then stop following."""
    pieces = reader.follow(stream, start)
    try:
        return await take(pieces, count)
    finally:
        await pieces.aclose()


async def settle() -> None:
    """Let everything go on for a while that could."""
    await asyncio.sleep(0.2)


async def begun(reader: Reader, stream: str) -> None:
    """Wait until what follows by this reader stands where it begins, as far as can be seen from outside.

    On a slow machine a reader may be connecting for longer than anything settles. To begin costs it the connection and
    two answers; each of these costs an answer, too, on the same connection.
    """
    for _ in range(3):
        await reader.end(stream)
    await settle()

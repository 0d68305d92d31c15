"""Streams of numbered lines over a real Kafka."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sandpost.bus.contract import Batch, Missing, Record, Start
from sandpost.bus.kafka import KafkaReader, KafkaSettings, KafkaWriter
from sandpost.model.errors import BusError

WITHIN = 25.0
"""Seconds that anything may take before a test gives it up."""


def settings(servers: str, **more: Any) -> KafkaSettings:
    """Return settings with a topic of the test's own."""
    topic = f"t-{uuid.uuid4().hex[:8]}"
    # Times of tests are any: nothing goes by age.
    mine: dict[str, Any] = {"servers": servers, "topic": topic, "partitions": 4, "patience": 5.0, "retention_ms": -1}
    return KafkaSettings(**(mine | more))


def batch(first: int, count: int, *, stream: str = "acme", source: str = "s1", pad: int = 0, at: float = 0) -> Batch:
    """Return lines that say their numbers from `first` on; the source's `end` is the number behind the last."""
    lines = b"".join(
        json.dumps({"n": number, "pad": "x" * pad}).encode() + b"\n" for number in range(first, first + count)
    )
    return Batch(stream=stream, source=source, end=first + count, lines=lines, count=count, time=at or time.time())


def numbers(found: Sequence[Record | Missing]) -> list[int]:
    """Return the numbers of what was read."""
    return [json.loads(one.line)["n"] for one in found if isinstance(one, Record)]


@asynccontextmanager
async def writer(how: KafkaSettings, name: str = "host") -> AsyncIterator[KafkaWriter]:
    one = KafkaWriter(how, name)
    await one.open()
    try:
        yield one
    finally:
        await one.close()


@asynccontextmanager
async def reader(how: KafkaSettings) -> AsyncIterator[KafkaReader]:
    one = KafkaReader(how, "api")
    try:
        yield one
    finally:
        await one.close()


async def keep(one: KafkaWriter, *batches: Batch) -> None:
    """Write and wait until all is kept."""
    one.append(batches)
    wanted = {each.source: each.end for each in batches if each.source}
    async with asyncio.timeout(WITHIN):
        while wanted:
            for source, end in (await one.kept()).items():
                if wanted.get(source, end + 1) <= end:
                    del wanted[source]


async def read(
    one: KafkaReader, start: Start, until: Callable[[list[Record | Missing]], bool], stream: str = "acme"
) -> list[Record | Missing]:
    """Return what a stream has from `start` on, as soon as `until` is content."""
    found: list[Record | Missing] = []
    following = one.follow(stream, start)
    try:
        async with asyncio.timeout(WITHIN):
            async for piece in following:
                assert len(piece) <= 1_000
                found += piece
                if until(found):
                    return found
    finally:
        await following.aclose()
    raise AssertionError("the stream ended")


def at_least(count: int) -> Callable[[list[Record | Missing]], bool]:
    return lambda found: len(found) >= count


def has(number: int) -> Callable[[list[Record | Missing]], bool]:
    """Content when the last record that came says this number."""
    return lambda found: numbers(found[-1:]) == [number]


async def until(content: Callable[[], bool]) -> None:
    """Return when something that is not told of has come to be."""
    async with asyncio.timeout(WITHIN):
        while not content():  # noqa: ASYNC110  # there is no event of it
            await asyncio.sleep(0.01)


async def waits(other: KafkaReader, stream: str = "acme") -> None:
    """Return when somebody has had all there is of a stream, and waits for more."""
    await until(lambda: any(stream.encode() in one.tail._waiting for one in other._partitions.values()))


class Following:
    """Somebody who follows a stream in the background."""

    def __init__(self, one: KafkaReader, start: Start, stream: str = "acme", pause: float = 0.0) -> None:
        self.found: list[Record | Missing] = []
        self._changed = asyncio.Event()
        self._pause = pause
        self._task = asyncio.create_task(self._follow(one, start, stream))

    async def _follow(self, one: KafkaReader, start: Start, stream: str) -> None:
        following = one.follow(stream, start)
        try:
            async for piece in following:
                self.found += piece
                self._changed.set()
                await asyncio.sleep(self._pause)
        finally:
            await following.aclose()

    async def until(self, content: Callable[[list[Record | Missing]], bool]) -> list[Record | Missing]:
        async with asyncio.timeout(WITHIN):
            while not (self.found and content(self.found)):
                self._changed.clear()
                changed = asyncio.create_task(self._changed.wait())
                await asyncio.wait({changed, self._task}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if self._task.done():
                    self._task.result()
                    raise AssertionError("the stream ended")
        return self.found

    async def end(self) -> list[Record | Missing]:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        return self.found


async def fails(what: Awaitable[object]) -> str:
    """Return with what message a call says that the bus is away."""
    try:
        async with asyncio.timeout(WITHIN):
            await what
    except BusError as error:
        return error.message
    raise AssertionError("it did not fail")

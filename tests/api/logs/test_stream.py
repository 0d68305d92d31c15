"""One stream, and what streams share, over a scripted bus: what the real one does too seldom to be seen."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

import pytest

from sandpost.api.logs.asking import read
from sandpost.api.logs.filters import Filter
from sandpost.api.logs.frames import End, Scribe, Written
from sandpost.api.logs.stream import Stream
from sandpost.api.logs.streams import Streams
from sandpost.bus.contract import Missing, Record, Start
from sandpost.model.errors import BusError
from support.proxy import eventually

Piece = Sequence[Record | Missing]
Script = Callable[[Start], AsyncGenerator[Piece, None]]


class Bus:
    def __init__(self, script: Script, end: int = 0) -> None:
        self._script = script
        self._end = end

    def follow(self, _stream: str, start: Start) -> AsyncGenerator[Piece, None]:
        return self._script(start)

    async def end(self, _stream: str) -> int:
        return self._end

    async def close(self) -> None:
        pass


class Reader:
    """Takes what a stream sends; with `rests` it takes the first piece, and not the second until that is taken back."""

    def __init__(self, *, rests: bool = False) -> None:
        self.chunks: list[bytes] = []
        self.complete = False
        self.gone = asyncio.Event()
        self._rests = rests

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if self._rests and self.chunks:
            self._rests = False
            await asyncio.Event().wait()
        self.chunks.append(message["body"])
        self.complete = not message["more_body"]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in b"".join(self.chunks).splitlines()]


async def nobody(_look: Any) -> tuple[int, set[bytes]]:
    return 0, set()


async def opened(streams: Streams, query: str = "", **headers: str) -> Stream:
    return await streams.open("acme", read(query.encode(), headers, 0.0), None)


def numbered(*numbers: int) -> Piece:
    return tuple(Record(number, b'{"n":%d,"msg":"line"}' % number) for number in numbers)


def run(body: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await body

    asyncio.run(bounded())


def test_history_that_takes_long_to_look_through_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandpost.api.logs.stream._ANSWER_WITHIN", 2.0)

    async def script(_start: Start) -> AsyncGenerator[Piece, None]:
        for number in range(6):
            yield numbered(number)
            await asyncio.sleep(0.4)
        yield (Record(6, b'{"n":6,"msg":"needle"}'),)
        yield ()
        await asyncio.sleep(60)

    async def body() -> None:
        reader = Reader()
        stream = await opened(Streams(nobody, Bus(script, end=7)), "offset=0&timeout=1&f.msg=needle")
        await stream.run(reader.receive, reader.send)
        assert [one.get("n") for one in reader.records] == [6, None]

    run(body())


@pytest.mark.parametrize(("query", "end"), [("tail=9&follow=false", "told"), ("tail=9&timeout=100", "timeout")])
def test_a_bus_that_is_slow_to_answer_is_waited_for(query: str, end: str) -> None:
    async def script(_start: Start) -> AsyncGenerator[Piece, None]:
        await asyncio.sleep(1.5)
        yield numbered(0)
        # Where a bus holds many streams in one, the last record of this one is far before the end.
        await asyncio.sleep(1.5)
        yield numbered(1)
        yield ()
        await asyncio.sleep(60)

    async def body() -> None:
        reader = Reader()
        stream = await opened(Streams(nobody, Bus(script, end=1_000_000)), query)
        await stream.run(reader.receive, reader.send)
        assert [one.get("n") for one in reader.records] == [0, 1, None]
        assert reader.records[-1]["end"] == end

    run(body())


@pytest.mark.parametrize("query", ["tail=9&follow=false", "tail=9&timeout=100"])
@pytest.mark.parametrize("pieces", [(), (numbered(0),)])
def test_a_bus_that_does_not_go_on_with_what_was_there_is_told_as_the_end(
    query: str, pieces: Sequence[Piece], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandpost.api.logs.stream._ANSWER_WITHIN", 0.3)

    async def script(_start: Start) -> AsyncGenerator[Piece, None]:
        for piece in pieces:
            yield piece
        await asyncio.sleep(60)

    async def body() -> None:
        reader = Reader()
        streams = Streams(nobody, Bus(script, end=1_000_000))
        stream = await opened(streams, query)
        await stream.run(reader.receive, reader.send)
        assert len(reader.records) == len(pieces) + 1
        assert reader.records[-1]["end"] == "bus"
        assert streams.ends == {"bus": 1}

    run(body())


@pytest.mark.parametrize("query", ["offset=0&follow=false", "offset=0&timeout=100"])
def test_history_that_waits_for_others_filters_is_no_silence(query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandpost.api.logs.stream._ANSWER_WITHIN", 1.0)

    async def script(_start: Start) -> AsyncGenerator[Piece, None]:
        yield numbered(0, 1)
        yield ()
        await asyncio.sleep(60)

    async def body() -> None:
        reader = Reader()
        streams = Streams(nobody, Bus(script, end=2))
        stream = await opened(streams, query + "&f.msg=line")
        async with streams._filtering:
            running = asyncio.create_task(stream.run(reader.receive, reader.send))
            await asyncio.sleep(1.5)
        await running
        assert [one.get("n") for one in reader.records] == [0, 1, None]

    run(body())


def test_without_follow_it_ends_where_the_end_was_however_much_comes() -> None:
    async def script(_start: Start) -> AsyncGenerator[Piece, None]:
        for number in range(1000):
            if number == 3:
                yield ()
            yield numbered(number)

    async def body() -> None:
        reader = Reader()
        stream = await opened(Streams(nobody, Bus(script, end=3)), "offset=0&follow=false")
        await stream.run(reader.receive, reader.send)
        assert [one.get("n") for one in reader.records] == [0, 1, 2, None]
        assert reader.records[-1]["end"] == "told"

    run(body())


@pytest.mark.parametrize(
    ("error", "word", "says"),
    [(BusError("the disk is away"), "bus", "the disk is away"), (KeyError(), "failed", "log")],
)
def test_a_failure_is_told_as_the_streams_end(error: Exception, word: str, says: str) -> None:
    async def script(_start: Start) -> AsyncGenerator[Piece, None]:
        yield numbered(0)
        raise error

    async def body() -> None:
        reader = Reader()
        streams = Streams(nobody, Bus(script))
        stream = await opened(streams, "offset=0")
        await stream.run(reader.receive, reader.send)
        assert reader.records[-1]["end"] == word
        assert says in reader.records[-1]["msg"]
        assert reader.complete
        assert streams.ends == {word: 1}

    run(body())


def test_a_reader_that_has_gone_ends_the_reading_of_the_bus() -> None:
    ended = asyncio.Event()

    async def script(_start: Start) -> AsyncGenerator[Piece, None]:
        try:
            yield numbered(0)
            await asyncio.sleep(60)
        finally:
            ended.set()

    async def body() -> None:
        reader = Reader()
        stream = await opened(Streams(nobody, Bus(script)), "offset=0")
        running = asyncio.create_task(stream.run(reader.receive, reader.send))
        await asyncio.sleep(0.002)
        reader.gone.set()
        await running
        assert ended.is_set()
        assert not reader.complete

    run(body())


def test_a_resting_reader_is_told_the_end_unless_it_could_not_unpack_it() -> None:
    async def script(_start: Start) -> AsyncGenerator[Piece, None]:
        for number in range(10):
            yield numbered(number)

    async def body() -> None:
        for headers, told in (({"accept-encoding": "gzip"}, False), ({}, True)):
            reader = Reader(rests=True)
            streams = Streams(nobody, Bus(script))
            stream = await opened(streams, "offset=0", **headers)
            running = asyncio.create_task(stream.run(reader.receive, reader.send))
            await asyncio.sleep(0.05)
            streams.end(End.RESTART)
            await running
            assert len(reader.chunks) == 1 + told
            assert reader.complete is told

    run(body())


def test_filters_take_half_of_the_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    work: list[tuple[float, float]] = []

    def slow(_self: Filter, _line: bytes, _offset: int) -> bool:
        began = time.perf_counter()
        time.sleep(0.01)
        work.append((began, time.perf_counter()))
        return True

    monkeypatch.setattr(Filter, "passes", slow)

    async def script(_start: Start) -> AsyncGenerator[Piece, None]:
        for number in range(5):
            yield numbered(number)
        yield ()

    async def body() -> None:
        streams = Streams(nobody, Bus(script, end=5))
        readers = [Reader() for _ in range(3)]
        await asyncio.gather(
            *[
                (await opened(streams, f"offset=0&follow=false&level={level}")).run(one.receive, one.send)
                for level, one in enumerate(readers, 1)
            ]
        )
        assert len(work) == 15
        for (began, ended), (following, _) in itertools.pairwise(work):
            assert following - ended >= ended - began

    run(body())


def test_what_many_want_is_filtered_and_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = [numbered(number) for number in range(20)]
    made = []

    async def script(_start: Start) -> AsyncGenerator[Piece, None]:
        for piece in shared:
            yield piece
            await asyncio.sleep(0)
        yield ()

    piece = Scribe.piece

    def counted(self: Scribe, items: Piece, *more: Any) -> Written:
        made.append(items)
        return piece(self, items, *more)

    monkeypatch.setattr(Scribe, "piece", counted)

    async def body() -> None:
        streams = Streams(nobody, Bus(script, end=20))
        readers = [Reader() for _ in range(50)]
        running = [
            asyncio.create_task(
                (await opened(streams, f"offset=0&follow=false&f.msg={'l' * (1 + at % 2)}")).run(one.receive, one.send)
            )
            for at, one in enumerate(readers)
        ]
        await asyncio.gather(*running)
        assert [len(reader.records) for reader in readers] == [21, 1] * 25
        assert len(made) == 40

    run(body())


async def _endless() -> AsyncGenerator[Piece, None]:
    number = 0
    while True:
        yield numbered(number)
        number += 1
        await asyncio.sleep(0.002)


def test_with_many_active_streams_each_sends_less_often() -> None:
    async def body() -> None:
        streams = Streams(nobody, Bus(lambda _: _endless()))
        readers = [Reader() for _ in range(100)]
        tasks = [asyncio.create_task((await opened(streams)).run(one.receive, one.send)) for one in readers]
        await eventually(lambda: streams._pace)
        loop = asyncio.get_running_loop()
        began, before = loop.time(), len(readers[0].chunks)
        await asyncio.sleep(0.6)
        # There is something five times as often.
        assert len(readers[0].chunks) - before <= (loop.time() - began) / streams._pace + 2
        streams.end(End.RESTART)
        await asyncio.gather(*tasks)
        assert {reader.records[-1]["end"] for reader in readers} == {"restart"}

    run(body())

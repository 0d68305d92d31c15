"""What every driver of the bus does. A driver's tests import all of it and give the fixture `bus`."""

import asyncio
import contextlib
import random
import time
from typing import Protocol

import pytest

from sandpost.bus.contract import (
    MAX_BATCH,
    PIECE_BYTES,
    PIECE_RECORDS,
    Batch,
    Reader,
    Record,
    Start,
    Writer,
)
from sandpost.model.errors import BusError, InvalidName
from sandpost.model.names import SYSTEM
from support.bus import PATIENCE, Items, all_of, batch, begun, keep, line, number_of, read, run, take, told


class Bus(Protocol):
    """What the suite needs of a driver."""

    def writer(self) -> Writer:
        """Return a writer that is not open yet. One is open at a time."""

    def reader(self) -> Reader:
        """Return a reader."""

    def stream(self) -> str:
        """Return the name of a stream that nobody has written to."""


# --- writing ------------------------------------------------------------------------------------------------


def test_records_come_back_byte_for_byte_and_offsets_grow(bus: Bus) -> None:
    lines = [
        b'{"msg":"caf\xc3\xa9 \\u0000 \\n \\"quoted\\" }{"}',
        b"{}",
        b'{ "a" : [1, 2.50, {"b": null}] }',
        b'{"msg":"\xf0\x9f\x90\x99"}',
    ]

    async def body() -> None:
        stream, writer, reader = bus.stream(), bus.writer(), bus.reader()
        await writer.open()
        for end, some in enumerate((lines[:1], lines[1:3], lines[3:], lines), 1):
            blob = b"".join(one + b"\n" for one in some)
            await keep(
                writer,
                Batch(stream=stream, source="s.1", end=end, lines=blob, count=len(some), time=time.time()),
            )
        items = await read(reader, stream, Start(offset=0), 8)
        assert [item.line for item in items if isinstance(item, Record)] == lines * 2
        offsets = [item.offset for item in items if isinstance(item, Record)]
        assert offsets == sorted(set(offsets))
        await reader.close()
        await writer.close()

    run(body())


def test_kept_tells_how_far_each_source_came(bus: Bus) -> None:
    async def body() -> None:
        one, two, writer = bus.stream(), bus.stream(), bus.writer()
        await writer.open()
        writer.append([batch(one, [0], source="a.1", end=10), batch(two, [0], source="b", end=7)])
        writer.append([batch(one, [1], source="a.1", end=25), batch(one, [2], source="", end=0)])
        ends: dict[str, int] = {}
        async with asyncio.timeout(PATIENCE):
            while ends != {"a.1": 25, "b": 7}:
                ends |= await writer.kept()
        writer.append([batch(one, [3], source="", end=0)])
        async with asyncio.timeout(PATIENCE):
            while await writer.kept():
                pass
        await writer.close()

    run(body())


def test_a_wait_that_is_cancelled_loses_nothing(bus: Bus) -> None:
    async def body() -> None:
        stream, writer = bus.stream(), bus.writer()
        await writer.open()
        told: list[int] = []
        for number in range(50):
            writer.append([batch(stream, [number])])
            waiting = asyncio.create_task(writer.kept())
            await asyncio.sleep(random.uniform(0, 0.002))
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                told += (await waiting).values()
        async with asyncio.timeout(PATIENCE):
            while not told or told[-1] != 50:
                told += (await writer.kept()).values()
        assert told == sorted(told)
        await writer.close()

    run(body())


def test_room_is_what_may_be_appended_and_comes_back(bus: Bus) -> None:
    async def body() -> None:
        stream, other, writer = bus.stream(), bus.stream(), bus.writer()
        await writer.open()
        whole = writer.room(stream)
        assert whole >= MAX_BATCH
        number = 0
        while writer.room(stream) >= 100_000:
            before = writer.room(stream)
            writer.append([batch(stream, [number], size=100_000)])
            number += 1
            assert writer.room(stream) == before - 100_000
        with pytest.raises(ValueError, match="room"):
            writer.append([batch(stream, [number], size=100_000)])
        # What one stream has waiting leaves room for others.
        assert writer.room(other) >= MAX_BATCH
        async with asyncio.timeout(PATIENCE):
            while (await writer.kept()).get("s.1") != number:
                pass
        assert writer.room(stream) == whole
        await keep(writer, batch(stream, [number]))
        reader = bus.reader()
        items = await read(reader, stream, Start(offset=0), number + 1)
        assert [number_of(item) for item in items] == list(range(number + 1))
        await reader.close()
        await writer.close()

    run(body())


GOOD = {"stream": "acme", "source": "s.1", "end": 5, "lines": b'{"a":1}\n{}\n', "count": 2, "time": 1.5}


@pytest.mark.parametrize(
    "wrong",
    [
        {"lines": b"", "count": 0},
        {"lines": b'{"a":1}'},
        {"lines": b"{}\n{}"},
        {"count": 0},
        {"count": 1},
        {"count": 3},
        {"lines": b"{}\n" + b"x" * MAX_BATCH + b"\n"},
        {"lines": b'{"a":"\xff"}\n{}\n'},
        {"source": "A"},
        {"source": "s/1"},
        {"source": "s" * 41},
        {"end": -1},
        {"end": 1 << 63},
        {"time": -1.0},
        {"time": float("nan")},
        {"time": float("inf")},
    ],
    ids=str,
)
def test_what_is_no_batch_is_refused_and_nothing_with_it_is_taken(bus: Bus, wrong: dict[str, object]) -> None:
    async def body() -> None:
        stream, writer = bus.stream(), bus.writer()
        await writer.open()
        room = writer.room(stream)
        good = GOOD | {"stream": stream}
        with pytest.raises(ValueError):
            writer.append([Batch(**good), Batch(**(good | wrong))])  # type: ignore[arg-type]
        assert writer.room(stream) == room
        await writer.close()

    run(body())


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "A", ".lock", ".system2", "x" * 64, "logs", "a\n"])
def test_what_cannot_be_a_stream_is_refused(bus: Bus, name: str) -> None:
    async def body() -> None:
        writer, reader = bus.writer(), bus.reader()
        await writer.open()
        with pytest.raises(InvalidName):
            writer.append([batch(name, [0])])
        with pytest.raises(InvalidName):
            reader.follow(name, Start())
        await reader.close()
        await writer.close()

    run(body())


def test_closing_keeps_what_was_taken(bus: Bus) -> None:
    async def body() -> None:
        stream, writer = bus.stream(), bus.writer()
        await writer.open()
        writer.append([batch(stream, range(one, one + 10)) for one in range(0, 1000, 10)])
        await writer.close()
        assert writer.room(stream) == 0
        with pytest.raises(ValueError, match="room"):
            writer.append([batch(stream, [1000])])
        async with asyncio.timeout(PATIENCE):
            assert dict(await writer.kept()) == {"s.1": 1000}
            with pytest.raises(BusError, match="closed"):
                await writer.kept()
        reader = bus.reader()
        assert [number_of(item) for item in await read(reader, stream, Start(offset=0), 1000)] == list(range(1000))
        await reader.close()

    run(body())


# --- after a crash of who writes ----------------------------------------------------------------------------


def test_a_next_writer_finds_how_far_each_source_came_and_goes_on(bus: Bus) -> None:
    async def body() -> None:
        one, two, writer = bus.stream(), bus.stream(), bus.writer()
        await writer.open()
        await keep(writer, batch(one, range(20), source="a.1", end=200), batch(two, [0, 1], source="b", end=15))
        noted = dict(writer.reached())
        assert noted.keys() == {one, two}
        assert not writer.reached()
        await keep(writer, batch(one, [20], source="a.2", end=3))
        assert writer.reached().keys() == {one}
        reader = bus.reader()
        offsets = [item.offset for item in await read(reader, one, Start(offset=0), 21) if isinstance(item, Record)]
        assert offsets[19] < noted[one] <= offsets[20]
        await writer.close()
        writer = bus.writer()
        await writer.open()
        sources = {"a.1": one, "a.2": one, "b": two, "c": two, "d": bus.stream()}
        assert dict(await writer.positions(sources, {})) == {"a.1": 200, "a.2": 3, "b": 15}
        assert dict(await writer.positions({"a.1": two, "b": two}, {})) == {"b": 15}
        assert dict(await writer.positions({}, {})) == {}
        found = await writer.positions(sources, noted)
        assert found["a.2"] == 3
        # It is enough to look from there on; a driver may see more.
        assert (found.get("a.1", 200), found.get("b", 15)) == (200, 15)
        await keep(writer, batch(one, [21], source="a.1", end=210))
        assert (await writer.positions({"a.1": one}, noted))["a.1"] == 210
        items = await read(reader, one, Start(offset=0), 22)
        assert [number_of(item) for item in items] == list(range(22))
        offsets = [item.offset for item in items if isinstance(item, Record)]
        assert offsets == sorted(set(offsets))
        await reader.close()
        await writer.close()

    run(body())


# --- where reading begins -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"offset": -1}, {"tail": -1}, {"offset": 0, "tail": 1}, {"offset": 0, "since": 0.0}, {"since": float("nan")}],
    ids=str,
)
def test_starts_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"from an offset, or|counts from 0|not a number"):
        Start(**wrong)  # type: ignore[arg-type]


def test_reading_begins_where_it_is_asked_to(bus: Bus) -> None:
    async def body() -> None:
        stream, writer, reader = bus.stream(), bus.writer(), bus.reader()
        await writer.open()
        for one in range(10):
            await keep(writer, batch(stream, range(one * 10, one * 10 + 10), at=1000.0 + one * 10))
        items = await read(reader, stream, Start(offset=0), 100)
        offsets = [item.offset for item in items if isinstance(item, Record)]

        async def first(start: Start) -> int:
            """Return the first number that is read, which is followed by all others."""
            pieces = reader.follow(stream, start)
            taken = await take(pieces, 1)
            begin = number_of(taken[0])
            taken += await take(pieces, 100 - begin - len(taken)) if len(taken) < 100 - begin else []
            await pieces.aclose()
            assert [number_of(item) for item in taken] == list(range(begin, 100))
            return begin

        assert [await first(Start(offset=offsets[number])) for number in (0, 1, 9, 10, 55, 99)] == [0, 1, 9, 10, 55, 99]
        assert [await first(Start(tail=count)) for count in (1, 9, 10, 11, 100, 101, 10**30)] == [
            99,
            91,
            90,
            89,
            0,
            0,
            0,
        ]
        times = {0.0: 0, -1e300: 0, 1000.0: 0, 1000.5: 10, 1010.0: 10, 1055.0: 60, 1090.0: 90}
        assert {since: await first(Start(since=since)) for since in times} == times
        both = {(100, 1055.0): 60, (5, 1055.0): 95, (40, 1055.0): 60, (41, 0.0): 59, (10**30, 1010.0): 10}
        assert {one: await first(Start(tail=one[0], since=one[1])) for one in both} == both
        at_the_end = [
            Start(), Start(tail=0), Start(tail=0, since=0.0), Start(tail=7, since=1090.5), Start(offset=offsets[-1] + 1), Start(offset=10**30),
            Start(since=1090.5), Start(since=float("inf")),
        ]  # fmt: skip
        following = [asyncio.create_task(read(reader, stream, start, 1)) for start in at_the_end]
        await begun(reader, stream)
        await keep(writer, batch(stream, [100], at=2000.0))
        for task in following:
            assert [number_of(item) for item in await task] == [100]
        await reader.close()
        await writer.close()

    run(body())


@pytest.mark.parametrize(
    "start", [Start(), Start(offset=0), Start(offset=77), Start(tail=5), Start(since=0.0)], ids=str
)
def test_a_stream_that_was_never_written_waits_for_its_first_record(bus: Bus, start: Start) -> None:
    async def body() -> None:
        stream, writer, reader = bus.stream(), bus.writer(), bus.reader()
        await writer.open()
        await keep(writer, batch(bus.stream(), [5]))
        following = asyncio.create_task(read(reader, stream, start, 3))
        await begun(reader, stream)
        assert not following.done()
        await keep(writer, batch(stream, [0]), batch(stream, [1, 2]))
        assert [number_of(item) for item in await following] == [0, 1, 2]
        await reader.close()
        await writer.close()

    run(body())


# --- what was there -----------------------------------------------------------------------------------------


def test_that_all_which_was_there_has_been_told_is_marked_once(bus: Bus) -> None:
    async def body() -> None:
        stream, writer, reader = bus.stream(), bus.writer(), bus.reader()
        await writer.open()
        for first in range(0, 3000, 500):
            await keep(writer, batch(stream, range(first, first + 500), at=1000.0 + first))
        # Of others, behind and beside it.
        for number in range(20):
            await keep(writer, batch(bus.stream(), [number]))
        ways = {
            Start(offset=0): 0, Start(since=0.0): 0, Start(tail=10**9): 0, Start(tail=1200): 1800, Start(tail=1): 2999,
            Start(since=1600.0): 1000, Start(tail=7, since=0.0): 2993, Start(): 3000, Start(tail=0): 3000,
            Start(offset=10**15): 3000, Start(since=5000.0): 3000,
        }  # fmt: skip
        following = [reader.follow(stream, start) for start in ways]
        for pieces, first in zip(following, ways.values(), strict=True):
            assert [number_of(item) for item in await told(pieces)] == list(range(first, 3000))
        nobody = bus.stream()
        following.append(reader.follow(nobody, Start(offset=0)))
        assert await told(following[-1]) == []
        await keep(writer, batch(stream, [3000]), batch(nobody, [3000], source="s.2"))
        for pieces in following:
            assert [number_of(item) for item in await anext(pieces)] == [3000]
            await pieces.aclose()
        await reader.close()
        await writer.close()

    run(body())


def test_what_was_there_is_marked_however_much_comes(bus: Bus) -> None:
    async def body() -> None:
        stream, writer, reader = bus.stream(), bus.writer(), bus.reader()
        await writer.open()
        for first in range(0, 5000, 1000):
            await keep(writer, batch(stream, range(first, first + 1000), size=300))
        pieces = reader.follow(stream, Start(offset=0))
        items = await take(pieces, 1)
        for first in range(5000, 25_000, 1000):
            await keep(writer, batch(stream, range(first, first + 1000), size=300))
        items += await told(pieces)
        assert 5000 <= len(items) < 25_000
        items += await take(pieces, 25_000 - len(items))
        assert [number_of(item) for item in items] == list(range(25_000))
        await pieces.aclose()
        await reader.close()
        await writer.close()

    run(body())


# --- following ----------------------------------------------------------------------------------------------


def test_history_joins_live_without_gap_or_double_under_load(bus: Bus) -> None:
    total = 30_000
    chance = random.Random(5)

    async def body() -> None:
        stream, writer, reader = bus.stream(), bus.writer(), bus.reader()
        await writer.open()

        async def write() -> None:
            number = 0
            while number < total:
                count = min(chance.choice((1, 3, 40)), total - number)
                one = batch(stream, range(number, number + count), size=chance.choice((30, 200)))
                while writer.room(stream) < len(one.lines):
                    await writer.kept()
                writer.append([one])
                number += count
                await asyncio.sleep(0)
            async with asyncio.timeout(PATIENCE):
                while (await writer.kept()).get("s.1") != total:
                    pass

        async def follow(start: Start, first: int | None) -> None:
            pieces = reader.follow(stream, start)
            expected = first
            async with asyncio.timeout(PATIENCE * 2):
                async for items in pieces:
                    for item in items:
                        number = number_of(item)
                        assert expected in {None, number}, (start, expected, number)
                        expected = number + 1
                    if expected == total:
                        break
                    if chance.random() < 0.1:
                        await asyncio.sleep(chance.uniform(0, 0.01))
            await pieces.aclose()

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            starts = ((Start(offset=0), 0), (Start(tail=500), None), (Start(since=0.0), 0), (Start(), None))
            for _ in range(5):
                for start, begin in starts:
                    group.create_task(follow(start, begin))
                await asyncio.sleep(chance.uniform(0, 0.05))
        await reader.close()
        await writer.close()

    run(body())


def test_streams_do_not_mix(bus: Bus) -> None:
    async def body() -> None:
        streams = [bus.stream() for _ in range(5)]
        writer, reader = bus.writer(), bus.reader()
        await writer.open()
        following = [asyncio.create_task(read(reader, stream, Start(), 100)) for stream in streams]
        await begun(reader, streams[0])
        for number in range(100):
            writer.append(
                [batch(stream, [number * 10 + one], source=f"s.{one}") for one, stream in enumerate(streams)]
            )  # fmt: skip
            await writer.kept()
        for one, task in enumerate(following):
            assert [number_of(item) for item in await task] == [number * 10 + one for number in range(100)]
        await reader.close()
        await writer.close()

    run(body())


def test_the_platforms_own_stream_is_one_like_others(bus: Bus) -> None:
    async def body() -> None:
        writer, reader = bus.writer(), bus.reader()
        await writer.open()
        number = time.time_ns()
        await keep(writer, batch(SYSTEM, [number], source="api", end=number))
        assert number_of((await read(reader, SYSTEM, Start(tail=1), 1))[0]) == number
        await reader.close()
        await writer.close()

    run(body())


def test_pieces_are_bounded(bus: Bus) -> None:
    async def body() -> None:
        stream, writer, reader = bus.stream(), bus.writer(), bus.reader()
        await writer.open()
        sizes = [30] * 2500 + [1000] * 600 + [100_000] * 9 + [30, 30] + [MAX_BATCH] + [30]
        number = 0
        while number < len(sizes):
            count, size = 0, 0
            while number + count < len(sizes) and size + sizes[number + count] <= MAX_BATCH:
                size += sizes[number + count]
                count += 1
            blob = b"".join(line(one, sizes[one]) for one in range(number, number + count))
            number += count
            one = Batch(stream=stream, source="s.1", end=number, lines=blob, count=count, time=1.0)
            await keep(writer, one)
        pieces = reader.follow(stream, Start(offset=0))
        taken: Items = []
        while len(taken) < len(sizes):
            items = await take(pieces, 1)
            assert len(items) <= PIECE_RECORDS
            size = sum(len(item.line) + 1 for item in items if isinstance(item, Record))
            assert size <= PIECE_BYTES or len(items) == 1, (size, len(items))
            taken += items
        assert [number_of(item) for item in taken] == list(range(len(sizes)))
        await pieces.aclose()
        await reader.close()
        await writer.close()

    run(body())


def test_a_reader_that_does_not_read_delays_nobody_and_misses_nothing_that_is_kept(bus: Bus) -> None:
    async def body() -> None:
        stream, writer, reader = bus.stream(), bus.writer(), bus.reader()
        await writer.open()
        await keep(writer, batch(stream, [0]))
        slow, quick = reader.follow(stream, Start(offset=0)), reader.follow(stream, Start(offset=0))
        taken = await take(slow, 1)
        both = await take(quick, 1)
        for number in range(1, 5000, 10):
            await keep(writer, batch(stream, range(number, number + 10), size=300))
            both += await take(quick, 10)
        taken += await take(slow, 5000)
        assert [number_of(item) for item in taken] == [number_of(item) for item in both] == list(range(5001))
        await slow.aclose()
        await quick.aclose()
        await reader.close()
        await writer.close()

    run(body())


def test_a_thousand_follow_one_stream(bus: Bus) -> None:
    async def body() -> None:
        stream, writer, reader = bus.stream(), bus.writer(), bus.reader()
        await writer.open()
        await keep(writer, batch(stream, [0]))
        begun = asyncio.Semaphore(0)

        async def follow() -> list[int]:
            pieces = reader.follow(stream, Start(tail=1))
            taken = await take(pieces, 1)
            begun.release()
            taken += await take(pieces, 30)
            await pieces.aclose()
            return [number_of(item) for item in taken]

        following = [asyncio.create_task(follow()) for _ in range(1000)]
        async with asyncio.timeout(PATIENCE):
            for _ in following:
                await begun.acquire()
        for number in range(1, 31):
            await keep(writer, batch(stream, [number]))
        for task in following:
            assert await task == list(range(31))
        await reader.close()
        await writer.close()

    run(body())


def test_the_end_of_a_stream_is_behind_what_is_kept_and_not_behind_what_comes(bus: Bus) -> None:
    async def body() -> None:
        stream, writer, reader = bus.stream(), bus.writer(), bus.reader()
        await writer.open()
        for numbers in ([0], [1, 2, 3], range(4, 400)):
            end = await reader.end(stream)
            await keep(writer, batch(stream, list(numbers)))
            items = await read(reader, stream, Start(offset=end), len(numbers))
            assert [number_of(item) for item in items] == list(numbers)
            last = items[-1]
            assert isinstance(last, Record)
            assert await reader.end(stream) > last.offset
        with pytest.raises(InvalidName):
            await reader.end("../x")
        await reader.close()
        await writer.close()

    run(body())


# --- ends ---------------------------------------------------------------------------------------------------


def test_closing_a_reader_ends_all_that_follow(bus: Bus) -> None:
    async def body() -> None:
        stream, writer, reader = bus.stream(), bus.writer(), bus.reader()
        await writer.open()
        await keep(writer, batch(stream, [0]))
        waiting = [asyncio.create_task(all_of(reader.follow(stream, Start(offset=0)))) for _ in range(3)]
        waiting.append(asyncio.create_task(all_of(reader.follow(bus.stream(), Start()))))
        held = reader.follow(stream, Start(offset=0))
        await take(held, 1)
        await begun(reader, stream)
        await reader.close()
        async with asyncio.timeout(PATIENCE):
            assert [len(await task) for task in waiting] == [1, 1, 1, 0]
            assert await all_of(held) == []
            assert await all_of(reader.follow(stream, Start(offset=0))) == []
        await writer.close()

    run(body())


def test_who_stops_following_or_is_cancelled_disturbs_nobody(bus: Bus) -> None:
    async def body() -> None:
        stream, writer, reader = bus.stream(), bus.writer(), bus.reader()
        await writer.open()
        await keep(writer, batch(stream, [0]))
        stays, stops = reader.follow(stream, Start(offset=0)), reader.follow(stream, Start(offset=0))
        await take(stays, 1)
        await take(stops, 1)
        cancelled = asyncio.create_task(all_of(reader.follow(stream, Start())))
        await begun(reader, stream)
        await stops.aclose()
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await keep(writer, batch(stream, [1]))
        assert [number_of(item) for item in await take(stays, 1)] == [1]
        await stays.aclose()
        await reader.close()
        await writer.close()

    run(body())

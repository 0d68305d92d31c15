"""Drain and digest against a bus that keeps what it is told to keep, and lives that end at any moment."""

import asyncio
import contextlib
import json
import os
import struct
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandpost.bus.batches import check
from sandpost.bus.contract import Batch
from sandpost.collector import digest, drain
from sandpost.collector.drain import Drain
from sandpost.logs import drops
from sandpost.model.errors import BusError
from support.collector import lines_told

ID = "0123456789ab"


class Bus:
    """A writer in memory (`bus.contract.Writer`): what is taken is kept when `keep` says so, and lost with a life."""

    def __init__(self, capacity: int = 2 << 20) -> None:
        self.batches: list[Batch] = []
        self.capacity = capacity
        self.away = False
        self.looked_at = 0
        self._closed = False
        self._reached: dict[str, int] = {}
        self._taken: list[Batch] = []
        self._kept: dict[str, int] | None = None
        self._news = asyncio.Event()

    @property
    def problem(self) -> str:
        return "away" if self.away else ""

    async def open(self) -> None:
        return

    def append(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            check(batch)
            assert len(batch.lines) <= self.room(batch.stream)
            self._taken.append(batch)

    def room(self, _stream: str) -> int:
        return self.capacity - sum(len(one.lines) for one in self._taken)

    def keep(self, count: int) -> None:
        for batch in self._taken[:count]:
            last = max((one.end for one in self.batches if one.source == batch.source), default=-1)
            assert not batch.source or batch.end > last
            self.batches.append(batch)
            self._kept = {**(self._kept or {}), batch.source: batch.end}
            self._reached = {batch.stream: len(self.batches)}
        del self._taken[:count]
        self._news.set()

    async def kept(self) -> Mapping[str, int]:
        while self._kept is None:
            if self._closed:
                raise BusError("closed")
            self._news.clear()
            await self._news.wait()
        kept, self._kept = self._kept, None
        return kept

    async def positions(self, sources: Mapping[str, str], since: Mapping[str, int]) -> Mapping[str, int]:
        if self.away:
            raise BusError("away")
        self.looked_at = len(self.batches) - since.get("acme", 0)
        recent = self.batches[since.get("acme", 0) :]
        return {one.source: one.end for one in recent if sources.get(one.source) == one.stream}

    def reached(self) -> Mapping[str, int]:
        reached, self._reached = self._reached, {}
        return reached

    async def close(self) -> None:
        if not self.away:
            self.keep(len(self._taken))
        self._closed = True

    def begin_anew(self) -> None:
        """The process died: what was not kept is lost."""
        self._taken, self._kept, self._news, self._closed = [], None, asyncio.Event(), False
        self._reached = {}

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for one in self.batches for line in one.lines.splitlines()]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lives are of milliseconds here: so is all that is done now and then."""
    monkeypatch.setattr(digest, "_NOTE_EVERY", 0)
    monkeypatch.setattr(drain, "_TICK", 0.001)
    monkeypatch.setattr(drops, "TELL_QUIET", 0.0)


class Lives:
    """One sandbox's pipes, and collectors that come and go over them."""

    def __init__(self, folder: str, bus: Bus, *, rate: int = 0, spool: int = 64 << 20) -> None:
        self.folder, self.bus, self.rate, self.spool = folder, bus, rate, spool
        self.pipes = [os.pipe() for _ in range(3)]
        self.numbers = [0, 0, 0]
        self.unheard = 0
        """Batches that the bus keeps in the last moment of a life, which never hears of it."""
        self._waiting = [b"", b"", b""]
        for _, write in self.pipes:
            os.set_blocking(write, False)

    def say(self, stream: int, lines: int, cut: int, text: bytes = b"") -> None:
        """Write numbered lines; the last `cut` bytes follow with the next ones. What has no room is written later."""
        for _ in range(lines):
            line = text or b"%d " % self.numbers[stream] + b"x" * (self.numbers[stream] % 50)
            if stream == 2:
                self._waiting[stream] += struct.pack(">BBBBHBB", 0xF5, 1, 30, 0, len(line), 1, 0) + b"r" + line
            else:
                self._waiting[stream] += line + b"\n"
            self.numbers[stream] += 1
        self.write(stream, cut)

    def write(self, stream: int, cut: int = 0) -> bool:
        data = self._waiting[stream]
        with contextlib.suppress(BlockingIOError):
            written = os.write(self.pipes[stream][1], data[: len(data) - cut]) if len(data) > cut else 0
            self._waiting[stream] = data[written:]
        return not self._waiting[stream]

    @contextlib.asynccontextmanager
    async def life(self, *, orderly: bool = False) -> Any:
        self.bus.begin_anew()
        made = Drain(self.bus, self.folder, rate=self.rate, spool=self.spool, hostname="h", pid=1)
        running = asyncio.create_task(made.run())
        made.assign(ID, "acme")
        made.take(ID, [os.dup(read) for read, _ in self.pipes])
        try:
            yield made
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            self.bus.keep(self.unheard)
            self.unheard = 0
            if orderly:
                await made.close()
            else:
                for sandbox in [*made._sandboxes.values(), *made._leaving.values()]:
                    for stream in sandbox.streams:
                        made._forget(stream)
                        stream.close()
                        if stream.spool is not None:
                            stream.spool.close()
                        if stream.again is not None:
                            stream.again.cancel()
                if made._tick_timer is not None:
                    made._tick_timer.cancel()

    async def finish(self) -> None:
        """A last life, in which all is read and kept."""
        async with self.life(orderly=True) as last:
            quiet = 0
            while quiet < 5:
                told = [self.write(stream) for stream in range(3)]
                before = len(self.bus.batches)
                self.bus.keep(1000)
                await asyncio.sleep(0.002)
                streams = last._sandboxes[ID].streams
                busy = not all(told) or before != len(self.bus.batches)
                busy = busy or any(one.undone or not one.ready for one in streams)
                quiet = 0 if busy else quiet + 1

    async def written(self, stream: int) -> None:
        """Wait until the pipe has taken all that was said: no writer is held up."""
        for _ in range(200):
            if self.write(stream):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the writer is held up")

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Live through `work`."""
        try:
            asyncio.run(work)
        finally:
            self.close()

    def close(self) -> None:
        for pair in self.pipes:
            for fd in pair:
                os.close(fd)


steps = st.one_of(
    st.tuples(st.just("say"), st.integers(0, 2), st.integers(1, 300), st.integers(0, 80)),
    st.tuples(st.just("keep"), st.integers(0, 3)),
    st.tuples(st.just("turn")),
    st.tuples(st.just("die"), st.integers(0, 3)),
)


async def live(lives: Lives, script: list[tuple[Any, ...]], text: bytes = b"") -> None:
    script = list(script)
    while script:
        async with lives.life():
            while script:
                step = script.pop(0)
                if step[0] == "say":
                    lives.say(step[1], step[2], step[3], text)
                elif step[0] == "keep":
                    lives.bus.keep(step[1])
                elif step[0] == "die":
                    lives.unheard = step[1]
                    break
                await asyncio.sleep(0.001)
    await lives.finish()


def numbers_of(bus: Bus, stream: int) -> list[int]:
    name = f"{ID}.{('out', 'err', 'log')[stream]}"
    return [
        int(json.loads(line)["msg"].split()[0])
        for one in bus.batches
        if one.source == name
        for line in one.lines.splitlines()
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=25), st.sampled_from([600 << 10, 2 << 20]))
def test_every_line_is_there_once_whenever_the_collector_dies(script: list[tuple[Any, ...]], capacity: int) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        bus = Bus(capacity)
        lives = Lives(folder, bus)
        lives.run(live(lives, script))
        for stream in range(3):
            assert numbers_of(bus, stream) == list(range(lives.numbers[stream]))


@settings(max_examples=15, deadline=None)
@given(st.lists(steps, max_size=25))
def test_the_same_line_for_ever_is_there_as_often_as_it_was_said(script: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        bus = Bus()
        lives = Lives(folder, bus)
        lives.run(live(lives, script, b"same"))
        assert [one["msg"] for one in bus.records()] == ["same"] * sum(lives.numbers)


def test_more_records_than_the_bus_has_room_for_are_made_again_later(tmp_path: Path) -> None:
    async def body(lives: Lives) -> None:
        async with lives.life():
            lives.say(0, 8000, 0, b"s")
            await asyncio.sleep(0.02)
        await lives.finish()

    bus = Bus(600 << 10)
    lives = Lives(str(tmp_path), bus)
    lives.run(body(lives))
    assert len(bus.records()) == 8000
    assert len(bus.batches) > 3


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=25), st.sampled_from([3000, 20_000]))
def test_what_is_dropped_over_the_rate_is_told_once_whenever_the_collector_dies(
    script: list[tuple[Any, ...]], rate: int
) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        bus = Bus()
        lives = Lives(folder, bus, rate=rate)
        lives.run(live(lives, script))
        told = [one["msg"] for one in bus.records() if not one.get("sandbox")]
        dropped = lines_told(told)
        kept = [numbers_of(bus, stream) for stream in range(3)]
        for found in kept:
            assert found == sorted(set(found))
        assert sum(map(len, kept)) + dropped == sum(lives.numbers)


def test_what_waited_for_the_bus_is_not_dropped_for_coming_all_at_once(tmp_path: Path) -> None:
    async def body(lives: Lives) -> None:
        async with lives.life():
            lives.bus.capacity = 0
            for _ in range(20):
                # Each costs some 160 bytes: in two seconds less than the rate, and more than a burst.
                lives.say(0, 50, 0)
                await asyncio.sleep(0.1)
            lives.bus.capacity = 2 << 20
            lives.say(1, 1, 0)
            await asyncio.sleep(0.01)
            lives.bus.keep(10)
            await asyncio.sleep(1)
        await lives.finish()

    bus = Bus()
    lives = Lives(str(tmp_path), bus, rate=90_000)
    lives.run(body(lives))
    assert [one["msg"] for one in bus.records() if not one.get("sandbox")] == []
    assert numbers_of(bus, 0) == list(range(1000))


def test_lines_that_come_one_after_another_are_read_together(tmp_path: Path) -> None:
    async def body(lives: Lives) -> None:
        async with lives.life():
            await asyncio.sleep(0.01)
            for _ in range(60):
                lives.say(0, 1, 0)
                for _ in range(5):
                    await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            lives.bus.keep(60)
            await asyncio.sleep(0.01)
        await lives.finish()

    bus = Bus()
    lives = Lives(str(tmp_path), bus)
    lives.run(body(lives))
    assert numbers_of(bus, 0) == list(range(60))
    assert len(bus.batches) < 30


def whole(count: int) -> list[str]:
    return [f"{number} " + "x" * (number % 50) for number in range(count)]


@pytest.mark.parametrize("stream", [0, 2])
def test_who_writes_without_a_pause_has_whole_records_wherever_each_piece_ends(
    stream: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than this test is ever stopped for by a busy machine, and less than it takes.
    monkeypatch.setattr(digest, "PARTIAL", 2.0)

    async def body(lives: Lives) -> None:
        async with lives.life(orderly=True) as alive:
            for _ in range(70):
                lives.say(stream, 3, 5)
                await asyncio.sleep(0.05)
                lives.bus.keep(10)
            await lives.written(stream)
            await asyncio.sleep(0.05)
            assert alive.counts.forged == 0

    bus = Bus()
    lives = Lives(str(tmp_path), bus)
    lives.run(body(lives))
    assert [one["msg"] for one in bus.records()] == whole(210)


@pytest.mark.parametrize("stream", [0, 2])
def test_what_waited_for_the_bus_has_whole_records(
    stream: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "PARTIAL", 1.0)

    async def body(lives: Lives) -> None:
        async with lives.life(orderly=True) as alive:
            lives.say(stream, 2, 2)
            await asyncio.sleep(0.02)
            lives.bus.capacity = 0
            lives.say(stream, 8000, 0)
            await lives.written(stream)
            await asyncio.sleep(1.5)
            lives.bus.capacity = 4 << 20
            # What the bus has room for again it says by what it keeps.
            lives.bus.keep(10)
            for _ in range(100):
                await asyncio.sleep(0.005)
                lives.bus.keep(10)
            assert alive.counts.forged == 0

    bus = Bus()
    lives = Lives(str(tmp_path), bus)
    lives.run(body(lives))
    assert [one["msg"] for one in bus.records()] == whole(8002)


def test_little_of_the_bus_is_looked_at_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Much is to be on the bus, in many batches.
    monkeypatch.setattr(drain, "rest_after", lambda _moved, _since: 0.0)

    async def body(lives: Lives) -> None:
        async with lives.life():
            for _ in range(200):
                lives.say(0, 1, 0)
                await asyncio.sleep(0.001)
                lives.bus.keep(10)
            await asyncio.sleep(0.01)
            lives.say(0, 3, 0)
            await asyncio.sleep(0.01)
        assert len(lives.bus.batches) > 100
        async with lives.life():
            await asyncio.sleep(0.01)
        assert lives.bus.looked_at == 0
        await lives.finish()

    bus = Bus()
    lives = Lives(str(tmp_path), bus)
    lives.run(body(lives))
    assert numbers_of(bus, 0) == list(range(203))


def test_what_is_kept_while_the_bus_cannot_be_asked_hides_nothing_from_the_next_start(tmp_path: Path) -> None:
    async def body(lives: Lives) -> None:
        async with lives.life():
            lives.say(0, 30, 0)
            await asyncio.sleep(0.01)
            lives.unheard = 1
        lives.bus.away = True
        async with lives.life():
            lives.say(1, 30, 0)
            await asyncio.sleep(0.01)
            lives.bus.keep(10)
            await asyncio.sleep(0.01)
        lives.bus.away = False
        await lives.finish()

    bus = Bus()
    lives = Lives(str(tmp_path), bus)
    lives.run(body(lives))
    assert [numbers_of(bus, stream) for stream in (0, 1)] == [list(range(30))] * 2


def test_a_bus_that_takes_nothing_costs_lines_and_no_writer_and_all_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(digest, "PATIENCE", 0.05)
    monkeypatch.setattr(digest, "SHARE", 256)

    async def body(lives: Lives) -> None:
        async with lives.life() as alive:
            for _ in range(150):
                lives.say(0, 300, 0)
                await lives.written(0)
                assert alive.spooled <= 700 << 10
            assert alive.counts.unwritten
        # Another one finds what is left, and what was lost.
        await lives.finish()

    bus = Bus(600 << 10)
    lives = Lives(str(tmp_path), bus)
    lives.run(body(lives))
    told = [one["msg"] for one in bus.records() if not one.get("sandbox")]
    assert all(text.endswith("s: the log could not be written") for text in told)
    lost = lines_told(told)
    found = numbers_of(bus, 0)
    assert found == sorted(set(found))
    assert len(found) + lost == lives.numbers[0] == 45_000
    # What was there first and what came last are kept.
    assert found[0] == 0
    assert found[-1] == 44_999


def test_a_bus_that_cannot_be_asked_at_a_start_costs_only_what_comes_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(digest, "PATIENCE", 0.05)
    monkeypatch.setattr(digest, "SHARE", 256)
    monkeypatch.setattr(digest, "_RETRY", 0.05)

    async def body(lives: Lives) -> None:
        async with lives.life():
            lives.say(0, 300, 0)
            await asyncio.sleep(0.01)
            lives.bus.keep(1)
            lives.say(0, 300, 10)
            await asyncio.sleep(0.01)
        lives.bus.away = True
        async with lives.life() as alive:
            for _ in range(80):
                lives.say(0, 300, 0)
                await lives.written(0)
            assert alive.counts.unwritten
        lives.bus.away = False
        await lives.finish()

    bus = Bus()
    lives = Lives(str(tmp_path), bus)
    lives.run(body(lives))
    found = [one["msg"].split()[0] for one in bus.records() if one.get("sandbox")]
    told = [one["msg"] for one in bus.records() if not one.get("sandbox")]
    lost = lines_told(told)
    assert found[:599] == [str(number) for number in range(599)]
    assert len(set(found)) == len(found)
    # The line in whose middle the second life began may be cut in two by what was lost behind it.
    assert lives.numbers[0] <= len(found) + lost <= lives.numbers[0] + 1


def test_of_too_many_sandboxes_that_have_ended_the_oldest_lose_what_is_left_and_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "MAX_LEAVING", 3)
    bus = Bus(capacity=0)

    async def body() -> None:
        bus.begin_anew()
        made = Drain(bus, str(tmp_path), rate=0, spool=64 << 20, hostname="h", pid=1)
        running = asyncio.create_task(made.run())
        for number in range(6):
            sandbox_id = f"{number:012x}"
            pipes = [os.pipe() for _ in range(3)]
            os.write(pipes[0][1], b"one\ntwo\n")
            made.assign(sandbox_id, f"t{number}")
            made.take(sandbox_id, [read for read, _ in pipes])
            for _, write in pipes:
                os.close(write)
            made.release(sandbox_id)
            await asyncio.sleep(0.05)
        assert bus.batches == []
        bus.capacity = 2 << 20
        # What the bus has room for again it says by what it keeps.
        bus._kept = {}
        bus._news.set()
        for _ in range(100):
            await asyncio.sleep(0.01)
            bus.keep(100)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await made.close()

    asyncio.run(body())
    said = {number: [one["msg"] for one in bus.records() if one["container"] == f"t{number}"] for number in range(6)}
    for number in range(3):
        (told,) = said[number]
        assert lines_told([told]) == 2
        assert told.endswith("the log could not be written")
    for number in range(3, 6):
        assert said[number] == ["one", "two"]
    assert list(tmp_path.glob("*.out")) == []


def test_what_a_former_life_left_of_one_of_too_many_ended_sandboxes_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "MAX_LEAVING", 0)
    monkeypatch.setattr(drain, "FINISH", 0.01)

    async def body(lives: Lives) -> None:
        async with lives.life():
            lives.say(0, 10, 0)
            await asyncio.sleep(0.05)
            lives.bus.keep(10)
            await asyncio.sleep(0.05)
            lives.bus.capacity = 0
            lives.say(0, 30, 0)
            await asyncio.sleep(0.05)
        lives.bus.away, lives.bus.capacity = True, 2 << 20
        async with lives.life() as alive:
            lives.say(0, 5, 0)
            await asyncio.sleep(0.05)
            alive.release(ID)
            await asyncio.sleep(0.2)
            lives.bus.keep(10)
            assert alive.counts.unwritten == 35

    bus = Bus()
    lives = Lives(str(tmp_path), bus)
    lives.run(body(lives))
    assert numbers_of(bus, 0) == list(range(10))
    assert lines_told(one["msg"] for one in bus.records() if not one.get("sandbox")) == 35
    assert list(tmp_path.glob("*.out")) == []


def test_what_is_nobodys_yet_waits_for_a_controller_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drain, "HOLD", 1.2)
    monkeypatch.setattr(drain, "HOLD_ALONE", 1.5)
    bus = Bus()

    async def body() -> None:
        bus.begin_anew()
        made = Drain(bus, str(tmp_path), rate=0, spool=64 << 20, hostname="h", pid=1)
        running = asyncio.create_task(made.run())
        pipes = [os.pipe() for _ in range(3)]
        made.take(ID, [read for read, _ in pipes])
        os.write(pipes[0][1], b"alone\n")
        await asyncio.sleep(0.3)
        assert made.counts.unassigned == 0
        # A controller is there, and its words take their time.
        made.compare(set())
        await asyncio.sleep(0.05)
        made.assign(ID, "acme")
        await asyncio.sleep(0.05)
        bus.keep(100)
        assert [one["msg"] for one in bus.records()] == ["alone"]

        other = [os.pipe() for _ in range(3)]
        made.left_alone()
        made.take("f" * 12, [read for read, _ in other])
        os.write(other[0][1], b"one\ntwo\n")
        await asyncio.sleep(0.3)
        assert made.counts.unassigned == 0
        await asyncio.sleep(1.6)
        assert made.counts.unassigned == 2
        monkeypatch.setattr(drain, "HOLD", 0.1)
        made.compare(set())
        await asyncio.sleep(0.2)
        os.write(other[0][1], b"three\n")
        await asyncio.sleep(0.2)
        assert made.counts.unassigned == 3
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await made.close()
        for _, write in pipes + other:
            os.close(write)

    asyncio.run(body())

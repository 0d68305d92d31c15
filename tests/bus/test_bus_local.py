"""The local driver: the contract, and what only files and processes can show."""

import asyncio
import contextlib
import errno
import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from bus.contract_suite import *  # noqa: F403  (all of the contract's tests run here)
from sandpost.bus import local_append, local_pieces, local_reader, local_writer, segment
from sandpost.bus.contract import Missing, Reader, Record, Start, Writer
from sandpost.bus.local import Limits, LocalReader, LocalWriter
from sandpost.model.errors import BusError
from support.bus import PATIENCE, Items, all_of, batch, keep, number_of, read, run, settle, take


class Local:
    """The driver for the contract's suite."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._names = itertools.count()

    def writer(self) -> Writer:
        return LocalWriter(self._folder)

    def reader(self) -> Reader:
        return LocalReader(self._folder)

    def stream(self) -> str:
        return f"t{next(self._names)}"


@pytest.fixture
def bus(tmp_path: Path) -> Local:
    return Local(tmp_path / "streams")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "streams"


def segments(folder: Path, stream: str) -> list[Path]:
    return sorted((folder / stream).glob("*.seg"))


def offsets(items: Items) -> list[int]:
    return [item.offset for item in items if isinstance(item, Record)]


async def until_bytes(place: Path, most: int) -> None:
    """Wait until the segments at or below `place` have at most so many bytes."""

    def size_of(path: Path) -> int:
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0

    async with asyncio.timeout(PATIENCE):
        while sum(map(size_of, place.rglob("*.seg"))) > most:  # noqa: ASYNC110  (another thread's work)
            await asyncio.sleep(0.05)


async def fill(folder: Path, stream: str, count: int, *, limits: Limits | None = None, first: int = 0) -> None:
    """Write records of 1,000 bytes from number `first` on, with a writer of its own."""
    writer = LocalWriter(str(folder), limits=limits)
    await writer.open()
    for number in range(first, first + count, 10):
        await keep(writer, batch(stream, range(number, number + 10), size=1000, at=1000.0 + number))
    await writer.close()


# --- deaths and full disks ----------------------------------------------------------------------------------

_WRITE_FOR_EVER = """
import asyncio, os, random, sys
sys.path[:0] = ["tests"]
from sandpost.bus.local import LocalWriter
from support.bus import batch

async def main(folder, seed):
    chance = random.Random(seed)
    writer = LocalWriter(folder)
    await writer.open()
    # Bytes of the source are numbers of records here.
    sources = {"s.1": "acme", "s.2": "acme", "s.3": "other"}
    found = await writer.positions(sources, {})
    nexts = {source: found.get(source, 0) for source in sources}
    os.write(1, b"open %d %d %d\\n" % tuple(nexts.values()))

    async def tell():
        while True:
            for source, end in (await writer.kept()).items():
                os.write(1, b"%s %d\\n" % (source.encode(), end))

    telling = asyncio.create_task(tell())
    while True:
        for source, stream in sources.items():
            count = chance.choice((1, 20, 400))
            one = batch(stream, range(nexts[source], nexts[source] + count), source=source, size=chance.choice((0, 900)))
            if writer.room(stream) >= len(one.lines):
                writer.append([one])
                nexts[source] += count
        await asyncio.sleep(0.001)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_a_writer_that_is_killed_loses_nothing_that_was_kept_and_doubles_nothing(folder: Path) -> None:
    chance = random.Random(3)
    told = {"s.1": 0, "s.2": 0, "s.3": 0}

    def lives() -> None:
        for round_ in range(30):
            process = subprocess.Popen(
                [sys.executable, "-c", _WRITE_FOR_EVER, str(folder), str(round_)], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            word, *found = process.stdout.readline().split()
            assert word == "open"
            for source, there in zip(told, map(int, found), strict=True):
                assert there >= told[source], f"{source} was told {told[source]}, and {there} are there"
            heard = [process.stdout.readline() for _ in range(chance.randrange(1, 30))]
            # Whatever it is doing then.
            time.sleep(chance.uniform(0, 0.005))
            process.kill()
            for text in [*heard, *process.stdout.readlines()]:
                source, end = text.split()
                told[source] = int(end)
            process.stdout.close()
            process.wait()

    async def body() -> None:
        folder.mkdir()
        writer, reader = LocalWriter(str(folder)), LocalReader(str(folder))
        pieces = {stream: reader.follow(stream, Start(offset=0)) for stream in ("acme", "other")}
        followed: dict[str, Items] = {stream: [] for stream in pieces}

        async def follow(stream: str) -> None:
            async for items in pieces[stream]:
                followed[stream] += items

        following = [asyncio.create_task(follow(stream)) for stream in pieces]
        await asyncio.to_thread(lives)
        await writer.open()
        ends = await writer.positions({"s.1": "acme", "s.2": "acme", "s.3": "other"}, {})
        await writer.close()
        assert all(ends[source] >= told[source] > 0 for source in told)
        for stream, sources in (("acme", ("s.1", "s.2")), ("other", ("s.3",))):
            total = sum(ends[source] for source in sources)
            items = await read(reader, stream, Start(offset=0), total)
            assert not [item for item in items if isinstance(item, Missing)]
            # Who followed through all of it saw the same.
            async with asyncio.timeout(PATIENCE):
                while len(followed[stream]) < total:  # noqa: ASYNC110  (another task's work)
                    await asyncio.sleep(0.01)
            assert followed[stream] == items
            assert offsets(items) == sorted(set(offsets(items)))
            numbers = [number_of(item) for item in items]
            if len(sources) == 1:
                assert numbers == list(range(total))
            else:
                assert sorted(numbers) == sorted(number for source in sources for number in range(ends[source]))
        await reader.close()
        await asyncio.gather(*following)

    run(body())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_corrupts_nothing_and_is_told_until_there_is_room(small_disk: Path) -> None:
    async def body() -> None:
        writer, reader = LocalWriter(str(small_disk / "streams")), LocalReader(str(small_disk / "streams"))
        filler = small_disk / "filler"
        filler.write_bytes(bytes(900_000))
        await writer.open()
        appended = kept = 0
        problem = ""
        while not problem:
            # Not of a page's size, so that the disk takes a part of one.
            count = random.Random(appended).randrange(1, 40)
            writer.append([batch("acme", range(appended, appended + count), size=777)])
            appended += count
            try:
                kept = (await writer.kept()).get("s.1", kept)
            except BusError as error:
                problem = error.message
        assert "the disk is full" in problem
        assert writer.problem
        with pytest.raises(BusError, match="the disk is full"):
            await writer.kept()
        path, seed = small_disk / "streams" / "acme" / f"{0:020d}.seg", segment.seed_of("acme")

        def whole() -> int:
            return sum(
                one.head.size for one in segment.parse(path.read_bytes(), 0, seed) if isinstance(one, segment.Frame)
            )

        async with asyncio.timeout(PATIENCE):
            # Between two tries nothing is left of a frame.
            while whole() < path.stat().st_size:  # noqa: ASYNC110  (another thread's work)
                await asyncio.sleep(0.01)
        # A stream that has no folder yet fails too, and is not forgotten.
        writer.append([batch("other", range(1000), source="o", size=300)])
        pieces = reader.follow("acme", Start(offset=0))
        taken = await take(pieces, kept)
        assert [number_of(item) for item in taken] == list(range(kept))
        filler.unlink()
        ends: dict[str, int] = {}
        async with asyncio.timeout(PATIENCE):
            while ends.get("s.1") != appended or ends.get("o") != 1000:
                try:
                    ends |= await writer.kept()
                except BusError:
                    continue
        assert writer.problem == ""
        taken += await take(pieces, appended - kept)
        assert [number_of(item) for item in taken] == list(range(appended))
        assert offsets(taken) == list(range(appended))
        assert len(await read(reader, "other", Start(offset=0), 1000)) == 1000
        await pieces.aclose()
        await reader.close()
        await writer.close()

    run(body())


def test_a_stream_that_cannot_be_written_keeps_nobody_else_from_it(folder: Path) -> None:
    async def body() -> None:
        writer = LocalWriter(str(folder))
        await writer.open()
        (folder / "bad").write_text("no folder")
        writer.append([batch("bad", [0], source="b")])
        with pytest.raises(BusError, match="bad"):
            await writer.kept()
        for number in range(20):
            await keep(writer, batch("good", [number]))
        assert "bad" in writer.problem
        (folder / "bad").unlink()
        async with asyncio.timeout(PATIENCE):
            while writer.problem:
                try:
                    assert await writer.kept() == {"b": 1}
                except BusError:
                    continue
        await writer.close()

    run(body())


def test_a_disk_that_hangs_does_not_keep_a_writer_from_closing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, hung = threading.Event(), threading.Event()
    append = local_append.Appender.append

    def hang(self: local_append.Appender, *arguments: object) -> object:
        hung.set()
        hangs.wait(PATIENCE)
        return append(self, *arguments)  # type: ignore[arg-type]

    async def body() -> None:
        monkeypatch.setattr(local_writer, "_CLOSE", 0.1)
        monkeypatch.setattr(local_append.Appender, "append", hang)
        writer = LocalWriter(str(folder))
        await writer.open()
        writer.append([batch("acme", [0])])
        await asyncio.to_thread(hung.wait, PATIENCE)
        await writer.close()
        with pytest.raises(BusError, match="closed"):
            await writer.kept()
        hangs.set()
        # The lock goes when the disk comes back.
        later = LocalWriter(str(folder))
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await later.open()
                    break
                except BusError:
                    await asyncio.sleep(0.01)
        await later.close()

    run(body())


# --- two writers, and other users ---------------------------------------------------------------------------


def test_a_second_writer_is_refused_until_the_first_has_closed(bus: Local) -> None:
    async def body() -> None:
        stream, first, second, third = bus.stream(), bus.writer(), bus.writer(), bus.writer()
        await first.open()
        with pytest.raises(BusError, match="another process"):
            await second.open()
        await second.close()
        await keep(first, batch(stream, [0]))
        await first.close()
        await third.open()
        await keep(third, batch(stream, [1]))
        await third.close()
        reader = bus.reader()
        assert [number_of(item) for item in await read(reader, stream, Start(offset=0), 2)] == [0, 1]
        await reader.close()

    run(body())


def test_a_writer_in_another_process_is_refused_until_that_one_is_dead(folder: Path) -> None:
    async def body(process: subprocess.Popen[bytes]) -> None:
        writer = LocalWriter(str(folder))
        with pytest.raises(BusError, match="another process writes the logs"):
            await writer.open()
        await writer.close()
        process.kill()
        process.wait()
        writer = LocalWriter(str(folder))
        await writer.open()
        await writer.close()

    command = [sys.executable, "-c", _WRITE_FOR_EVER, str(folder), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            run(body(process))
        finally:
            process.kill()


def test_the_group_may_read_and_nobody_else(folder: Path) -> None:
    async def body() -> None:
        await fill(folder, "acme", 100)

    run(body())
    modes = {path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    assert modes == {
        ".lock": 0o600,
        "acme": 0o750,
        "acme/00000000000000000000.seg": 0o640,
        "acme/00000000000000000000.idx": 0o640,
    }
    assert folder.stat().st_mode & 0o777 == 0o750


_FOLLOW = """
import asyncio, os, sys
sys.path[:0] = ["tests"]
from sandpost.bus.contract import Start
from sandpost.bus.local import LocalReader
from sandpost.model.errors import BusError
from support.bus import number_of

async def main(folder, count):
    seen = 0
    try:
        async for items in LocalReader(folder).follow("acme", Start(offset=0)):
            for item in items:
                print(number_of(item), flush=True)
            seen += len(items)
            if seen == count:
                break
    except BusError as error:
        print(error.message)
    for path in ("acme/00000000000000000000.seg", "acme/00000000000000000009.seg", ".lock"):
        try:
            os.open(os.path.join(folder, path), os.O_WRONLY | os.O_CREAT)
        except PermissionError:
            print("refused")

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""
_READERS, _STRANGER = 54321, 54322


def test_a_process_of_the_group_follows_what_another_writes_and_alters_nothing_and_a_stranger_reads_nothing() -> None:
    async def body(place: str) -> None:
        folder = os.path.join(place, "streams")
        os.mkdir(folder)
        os.chown(folder, 0, _READERS)
        os.chmod(folder, 0o2750)
        writer = LocalWriter(folder)
        await writer.open()
        await keep(writer, batch("acme", range(5)))

        async def follow(user: int) -> asyncio.subprocess.Process:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-c", _FOLLOW, folder, "10",
                stdout=asyncio.subprocess.PIPE, user=user, group=user, extra_groups=(),
            )  # fmt: skip

        member, stranger = await follow(_READERS), await follow(_STRANGER)
        try:
            assert member.stdout is not None
            async with asyncio.timeout(PATIENCE):
                said = [await member.stdout.readline() for _ in range(5)]
                # It waits now, and is woken.
                await keep(writer, batch("acme", range(5, 10)))
                said += (await member.communicate())[0].splitlines(keepends=True)
                assert said == [b"%d\n" % number for number in range(10)] + [b"refused\n"] * 3
                words, *refused = (await stranger.communicate())[0].splitlines()
            assert b"cannot be read" in words
            assert b"Permission denied" in words
            assert refused == [b"refused"] * 3
        finally:
            for process in (member, stranger):
                if process.returncode is None:
                    process.kill()
        await writer.close()

    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        run(body(place))


@pytest.mark.parametrize("what", ["a file", "below a file"])
def test_a_place_that_cannot_be_written_is_told_by_its_name(tmp_path: Path, what: str) -> None:
    async def body() -> None:
        (tmp_path / "file").write_text("")
        place = tmp_path / "file" if what == "a file" else tmp_path / "file" / "streams"
        writer = LocalWriter(str(place))
        with pytest.raises(BusError, match="file"):
            await writer.open()
        await writer.close()

    run(body())


def test_descriptors_are_bounded_however_many_streams_there_are(folder: Path) -> None:
    async def body() -> None:
        writer = LocalWriter(str(folder), open_files=8)
        await writer.open()
        for number in range(5):
            await keep(writer, *(batch(f"t{one}", [number], source=f"s.{one}") for one in range(60)))
            held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd.isdigit() and os.path.lexists(f"/proc/self/fd/{fd}")]  # fmt: skip
            assert len([path for path in held if path.endswith(".seg")]) <= 8
        reader = LocalReader(str(folder))
        for one in range(60):
            items = await read(reader, f"t{one}", Start(offset=0), 5)
            assert [number_of(item) for item in items] == list(range(5))
            assert offsets(items) == list(range(5))
        await reader.close()
        await writer.close()

    run(body())


# --- segments, their index, and what goes -------------------------------------------------------------------

SMALL = Limits(stream_bytes=16 * 256 * 1024)
"""Segments of 256 KiB."""


def test_segments_are_begun_by_size_and_by_age(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        await fill(folder, "acme", 1000, limits=SMALL)
        assert [path.stat().st_size <= 256 * 1024 for path in segments(folder, "acme")] == [True] * 4
        writer = LocalWriter(str(folder), limits=SMALL)
        await writer.open()
        await keep(writer, batch("slow", [0]))
        assert len(segments(folder, "slow")) == 1
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + SMALL.segment_seconds + 1)
        await keep(writer, batch("slow", [1]))
        await keep(writer, batch("slow", [2]))
        assert [path.name[:20] for path in segments(folder, "slow")] == [f"{base:020d}" for base in (0, 1)]
        await writer.close()

    run(body())


STARTS = [Start(tail=1), Start(tail=333), Start(tail=939), Start(offset=0), Start(offset=517), Start(since=1500.0)]


@pytest.mark.parametrize("harm", ["none", "missing", "empty", "garbled", "cut", "of another segment"])
def test_an_index_that_is_missing_or_wrong_is_done_without_and_made_anew(folder: Path, harm: str) -> None:
    async def body() -> None:
        await fill(folder, "acme", 940, limits=SMALL)
        indexes = sorted((folder / "acme").glob("*.idx"))
        right = [path.read_bytes() for path in indexes]
        assert len(indexes) == 4
        assert all(len(blob) >= 2 * 24 for blob in right)
        for path, blob, other in zip(indexes, right, right[1:] + right[:1], strict=True):
            if harm == "missing":
                path.unlink()
            elif harm != "none":
                wrong = {"empty": b"", "garbled": bytes(len(blob)), "cut": blob[:-5], "of another segment": other}
                path.write_bytes(wrong[harm])
        reader = LocalReader(str(folder))
        for start, first in zip(STARTS, (939, 607, 1, 0, 517, 500), strict=True):
            items = await read(reader, "acme", start, 940 - first)
            assert [number_of(item) for item in items] == list(range(first, 940))
        await reader.close()
        await fill(folder, "acme", 10, first=940, limits=SMALL)
        assert indexes[-1].read_bytes() == right[-1]

    run(body())


def test_a_slow_reader_is_told_what_went_before_it_came_to_it(folder: Path) -> None:
    limits = Limits(stream_bytes=256 * 1024)

    async def body() -> None:
        writer, reader = LocalWriter(str(folder), limits=limits), LocalReader(str(folder))
        await writer.open()
        await keep(writer, batch("acme", range(10), size=1000))
        pieces = reader.follow("acme", Start(offset=0))
        taken = await take(pieces, 1)
        for number in range(10, 1500, 10):
            await keep(writer, batch("acme", range(number, number + 10), size=1000))
        await until_bytes(folder / "acme", limits.stream_bytes)
        while not taken or not isinstance(taken[-1], Record) or number_of(taken[-1]) != 1499:
            taken += await take(pieces, 1)
        gap = [item for item in taken if isinstance(item, Missing)]
        assert len(gap) == 1
        at = taken.index(gap[0])
        assert [number_of(item) for item in taken[:at]] == list(range(gap[0].first))
        assert [number_of(item) for item in taken[at + 1 :]] == list(range(gap[0].next_, 1500))
        assert 1000 < gap[0].next_ < 1400
        assert "removed" in gap[0].why
        # The same for who asks for them later.
        assert (await read(reader, "acme", Start(offset=5), 1))[0] == Missing(5, gap[0].next_, gap[0].why)
        await pieces.aclose()
        await reader.close()
        await writer.close()

    run(body())


def test_a_flood_shortens_no_other_streams_history(folder: Path) -> None:
    limits = Limits(stream_bytes=1 << 20, total_bytes=3 << 20)

    async def body() -> None:
        writer, reader = LocalWriter(str(folder), limits=limits), LocalReader(str(folder))
        await writer.open()
        await keep(writer, *(batch(f"quiet{one}", range(300), source=f"q.{one}", size=1000) for one in range(3)))
        for number in range(0, 6000, 100):
            await keep(
                writer, *(batch(f"flood{one}", range(number, number + 100), source=f"f.{one}", size=1000) for one in range(4))
            )  # fmt: skip
        await until_bytes(folder, limits.total_bytes)
        for one in range(3):
            items = await read(reader, f"quiet{one}", Start(offset=0), 300)
            assert [number_of(item) for item in items] == list(range(300))
        for one in range(4):
            items = await read(reader, f"flood{one}", Start(offset=0), 100)
            assert isinstance(items[0], Missing)
            assert 5000 < items[0].next_ < 5800
        await reader.close()
        await writer.close()

    run(body())


def test_records_go_by_age_and_offsets_go_on_all_the_same(folder: Path) -> None:
    limits = Limits(seconds=3600)

    async def body() -> None:
        await fill(folder, "acme", 100, limits=limits)
        await fill(folder, "young", 100, limits=limits)
        for path in segments(folder, "acme"):
            os.utime(path, (time.time() - 3700, time.time() - 3700))
        writer, reader = LocalWriter(str(folder), limits=limits), LocalReader(str(folder))
        await writer.open()
        await until_bytes(folder / "acme", 0)
        assert sorted(path.name for path in (folder / "acme").iterdir()) == [f"{100:020d}.seg"]
        following = asyncio.create_task(read(reader, "acme", Start(offset=0), 2))
        since = asyncio.create_task(read(reader, "acme", Start(since=0), 2))
        ends = [
            asyncio.create_task(read(reader, "acme", start, 1))
            for start in (Start(), Start(tail=5), Start(tail=0, since=0))
        ]
        await settle()
        await keep(writer, batch("acme", [7]))
        assert await following == [Missing(0, 100, local_pieces.GONE), Record(100, b'{"n": 7, "pad": ""}')]
        assert await since == [Missing(0, 100, local_pieces.EARLIER), Record(100, b'{"n": 7, "pad": ""}')]
        assert [number_of((await task)[0]) for task in ends] == [7, 7, 7]
        assert len(await read(reader, "young", Start(offset=0), 100)) == 100
        await reader.close()
        await writer.close()

    run(body())


def test_after_the_machine_was_started_anew_offsets_leave_a_gap_that_nobody_is_told_of(folder: Path) -> None:
    async def body() -> None:
        await fill(folder, "acme", 10)
        writer, reader = LocalWriter(str(folder)), LocalReader(str(folder))
        await writer.open()
        writer._files._boot += 1000
        following = asyncio.create_task(read(reader, "acme", Start(), 1))
        within = asyncio.create_task(read(reader, "acme", Start(offset=500), 1))
        await settle()
        await keep(writer, batch("acme", [10], size=1000))
        await keep(writer, batch("acme", [11], size=1000))
        items = await read(reader, "acme", Start(offset=0), 12)
        assert [number_of(item) for item in items] == list(range(12))
        assert offsets(items) == [*range(10), 10 + local_append.GAP, 11 + local_append.GAP]
        assert await following == [items[10]]
        assert await within == [items[10]]
        assert await read(reader, "acme", Start(offset=500), 2) == items[10:]
        assert await read(reader, "acme", Start(tail=3), 3) == items[9:]
        await reader.close()
        await writer.close()

    run(body())


def test_a_segment_that_stayed_empty_is_no_loss_that_is_told(folder: Path) -> None:
    async def body() -> None:
        reader = LocalReader(str(folder))
        for life in range(4):
            # As a disk leaves it that was full after the file was made.
            path = folder / "acme" / f"{life * (local_append.GAP + 10):020d}.seg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            await fill(folder, "acme", 10, first=life * 10)
        for start, first in (
            (Start(offset=0), 0),
            (Start(tail=40), 0),
            (Start(since=1005.0), 10),
            (Start(since=1025.0), 30),
        ):
            items = await read(reader, "acme", start, 40 - first)
            assert [number_of(item) for item in items] == list(range(first, 40))
        await reader.close()

    run(body())


def test_an_empty_segment_that_is_removed_costs_no_record(folder: Path) -> None:
    async def body() -> None:
        limits = Limits(seconds=3600)
        await fill(folder, "acme", 10, limits=limits)
        os.utime(segments(folder, "acme")[0], (time.time() - 3700, time.time() - 3700))
        writer, reader = LocalWriter(str(folder), limits=limits), LocalReader(str(folder))
        await writer.open()
        await until_bytes(folder / "acme", 0)
        segments(folder, "acme")[0].unlink()
        for number in range(3):
            await keep(writer, batch("acme", [number]))
        items = await read(reader, "acme", Start(tail=3), 3)
        assert [(number_of(item), offset) for item, offset in zip(items, offsets(items), strict=True)] == [
            (0, 10), (1, 11), (2, 12),
        ]  # fmt: skip
        await reader.close()
        await writer.close()

    run(body())


@pytest.mark.parametrize("harm", ["removed", "replaced", "cut", "emptied", "longer"])
@pytest.mark.parametrize("open_files", [1, 8])
def test_no_offset_is_given_twice_whatever_somebody_does_to_the_last_segment(
    folder: Path, harm: str, open_files: int
) -> None:
    async def body() -> None:
        writer, reader = LocalWriter(str(folder), open_files=open_files), LocalReader(str(folder))
        await writer.open()
        await keep(writer, batch("acme", range(10)), batch("acme", range(10, 20)))
        pieces = reader.follow("acme", Start(offset=0))
        taken = await take(pieces, 20)
        await keep(writer, batch("other", [0], source="o"))
        path = segments(folder, "acme")[0]
        blob = path.read_bytes()
        if harm == "removed":
            path.unlink()
        elif harm == "replaced":
            path.with_suffix(".new").write_bytes(blob[: len(blob) // 2])
            path.with_suffix(".new").rename(path)
        else:
            size = {"cut": len(blob) - 7, "emptied": 0, "longer": len(blob) + 9}[harm]
            os.truncate(path, size)
        for number in range(20, 23):
            await keep(writer, batch("acme", [number]))
        while number_of(taken[-1]) != 22:
            taken += [item for item in await take(pieces, 1) if isinstance(item, Record)]
        assert [number_of(item) for item in taken] == list(range(23))
        assert offsets(taken) == sorted(set(offsets(taken)))
        await pieces.aclose()
        await reader.close()
        await writer.close()

    run(body())


def test_what_lies_about_is_not_taken_for_ours(folder: Path) -> None:
    async def body() -> None:
        await fill(folder, "acme", 20)
        (folder / "lost+found").mkdir()
        (folder / "file").write_text("x")
        (folder / "empty").mkdir()
        for name in ("1.seg", "x", ".hidden", f"{1 << 60:020d}.seg", f"{5:021d}.seg", f"{3:020d}.seg~"):
            (folder / "acme" / name).write_text("x")
        (folder / "acme" / f"{77:020d}.idx").write_text("of a segment that has gone")
        writer, reader = LocalWriter(str(folder)), LocalReader(str(folder))
        await writer.open()
        assert not (folder / "acme" / f"{77:020d}.idx").exists()
        following = asyncio.create_task(read(reader, "empty", Start(offset=0), 1))
        await settle()
        await keep(writer, batch("acme", [20], size=1000), batch("empty", [0], source="e"))
        items = await read(reader, "acme", Start(offset=0), 21)
        assert [number_of(item) for item in items] == offsets(items) == list(range(21))
        assert len(await following) == 1
        await reader.close()
        await writer.close()

    run(body())


@pytest.mark.parametrize("kind", ["fifo", "link", "socket"])
def test_what_stands_in_a_files_place_and_is_none_holds_no_reader(folder: Path, tmp_path: Path, kind: str) -> None:
    async def body() -> None:
        await fill(folder, "acme", 10)
        await fill(folder, "other", 10)
        path = segments(folder, "acme")[0]
        path.rename(tmp_path / path.name)
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "link":
            path.symlink_to(tmp_path / path.name)
        else:
            with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(path.parent):
                # Its whole path may be longer than an address of a socket can be.
                listener.bind(path.name)
        reader = LocalReader(str(folder))
        # More than there are threads.
        following = [asyncio.create_task(all_of(reader.follow("acme", Start(offset=0)))) for _ in range(50)]
        await settle()
        try:
            assert len(await read(reader, "other", Start(offset=0), 10)) == 10
        finally:
            await reader.close()
            # Whoever waits for a writer of the FIFO has one.
            with contextlib.suppress(OSError):
                os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
        found = await asyncio.gather(*following, return_exceptions=True)
        if kind == "fifo":
            assert found == [[]] * 50
        else:
            assert all(isinstance(one, BusError) and "cannot be read" in one.message for one in found)

    run(body())


def test_records_of_another_stream_are_never_read_whatever_the_disk_says(folder: Path) -> None:
    async def body() -> None:
        await fill(folder, "acme", 50)
        await fill(folder, "other", 50)
        shutil.copy(segments(folder, "other")[0], segments(folder, "acme")[0])
        writer, reader = LocalWriter(str(folder)), LocalReader(str(folder))
        await writer.open()
        await keep(writer, batch("acme", [50], size=1000))
        items = await read(reader, "acme", Start(offset=0), 2)
        assert isinstance(items[0], Missing)
        assert number_of(items[1]) == 50
        await reader.close()
        await writer.close()

    run(body())


# --- following ----------------------------------------------------------------------------------------------


def test_nobody_looks_while_nothing_comes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    really = local_pieces.read

    def read_counted(*arguments: object) -> object:
        nonlocal looks
        looks += 1
        return really(*arguments)  # type: ignore[arg-type]

    async def body() -> None:
        writer, reader = LocalWriter(str(folder)), LocalReader(str(folder))
        await writer.open()
        await keep(writer, batch("acme", [0]), batch("other", [0], source="o"))
        monkeypatch.setattr(local_reader, "read", read_counted)
        following = [asyncio.create_task(read(reader, "acme", Start(), 1)) for _ in range(50)]
        following += [asyncio.create_task(read(reader, "never", Start(), 1)) for _ in range(50)]
        await settle()
        before = looks
        # One for all who are at the same place.
        assert before <= 2
        # Others write; nothing of it concerns these.
        for number in range(20):
            await keep(writer, batch("other", [number + 1], source="o"))
        await settle()
        assert looks == before
        await keep(writer, batch("acme", [1]))
        await asyncio.gather(*following[:50])
        # One look for all of them; a second one finds that there is no more.
        assert looks <= before + 4
        await reader.close()
        for task in following[50:]:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        await writer.close()

    run(body())


def test_a_thousand_streams_are_followed_in_one_process(folder: Path) -> None:
    async def body() -> None:
        names = [f"t{one}" for one in range(1000)]
        writer, reader = LocalWriter(str(folder)), LocalReader(str(folder))
        await writer.open()
        # Half of them are there, half are yet to come.
        await keep(writer, *(batch(name, [0], source=name) for name in names[::2]))
        following = [asyncio.create_task(read(reader, name, Start(offset=0), 3)) for name in names]
        await settle()
        for number in (1, 2, 3):
            await keep(writer, *(batch(name, [number], source=name) for name in names))
        for one, items in enumerate(await asyncio.gather(*following)):
            assert [number_of(item) for item in items][:3] == ([0, 1, 2] if one % 2 == 0 else [1, 2, 3])
        await reader.close()
        await writer.close()

    run(body())


def test_a_stream_whose_folder_is_removed_goes_on_for_writer_and_readers(folder: Path) -> None:
    async def body() -> None:
        writer, reader = LocalWriter(str(folder)), LocalReader(str(folder))
        await writer.open()
        await keep(writer, batch("acme", range(10)))
        pieces = [reader.follow("acme", Start(offset=0)) for _ in range(3)]
        for one in pieces:
            await take(one, 10)
            assert not await anext(one)
        waiting = [asyncio.create_task(anext(one)) for one in pieces]
        await settle()
        shutil.rmtree(folder / "acme")
        await settle()
        await keep(writer, batch("acme", [10]))
        for task in waiting:
            assert [(number_of(item), item.offset) for item in await task if isinstance(item, Record)] == [(10, 10)]
        # Both of it while nobody has looked in between.
        waiting = [asyncio.create_task(anext(one)) for one in pieces]
        await settle()
        shutil.rmtree(folder / "acme")
        await keep(writer, batch("acme", [11]))
        await keep(writer, batch("acme", [12]))
        for task, one in zip(waiting, pieces, strict=True):
            taken = list(await task)
            taken += await take(one, 2 - len(taken)) if len(taken) < 2 else []
            assert [number_of(item) for item in taken] == [11, 12]
            await one.aclose()
        await reader.close()
        await writer.close()

    run(body())


def test_a_removed_folder_that_somebody_still_stands_in_keeps_no_reader_waiting(folder: Path) -> None:
    async def body() -> None:
        writer, reader = LocalWriter(str(folder)), LocalReader(str(folder))
        await writer.open()
        await keep(writer, batch("acme", range(10)))
        waiting = asyncio.create_task(read(reader, "acme", Start(), 2))
        await settle()
        # The kernel tells of its end only when nobody holds it any more.
        held = os.open(folder / "acme", os.O_RDONLY)
        shutil.rmtree(folder / "acme")
        await keep(writer, batch("acme", [10]))
        await settle()
        await keep(writer, batch("acme", [11]))
        assert [number_of(item) for item in await waiting] == [10, 11]
        os.close(held)
        await reader.close()
        await writer.close()

    run(body())


def test_without_the_folder_of_all_streams_a_reader_is_told(folder: Path) -> None:
    async def body() -> None:
        reader = LocalReader(str(folder))
        with pytest.raises(BusError, match="is the collector running"):
            await read(reader, "acme", Start(), 1)
        folder.mkdir()
        following = asyncio.create_task(read(reader, "acme", Start(), 1))
        await settle()
        folder.rmdir()
        with pytest.raises(BusError, match="is the collector running"):
            await following
        await reader.close()

    run(body())


def test_a_file_that_cannot_be_read_is_told(folder: Path) -> None:
    async def body() -> None:
        await fill(folder, "acme", 10)
        path = segments(folder, "acme")[0]
        path.unlink()
        path.mkdir()
        reader = LocalReader(str(folder))
        with pytest.raises(BusError, match=os.strerror(errno.EISDIR)):
            await read(reader, "acme", Start(offset=0), 1)
        await reader.close()

    run(body())


def test_it_runs_on_the_parts_own_event_loop(folder: Path) -> None:
    async def body() -> None:
        writer, reader = LocalWriter(str(folder)), LocalReader(str(folder))
        await writer.open()
        following = asyncio.create_task(read(reader, "acme", Start(), 100))
        await settle()
        for number in range(100):
            await keep(writer, batch("acme", [number]))
        assert [number_of(item) for item in await following] == list(range(100))
        await reader.close()
        await writer.close()

    uvloop.run(body())

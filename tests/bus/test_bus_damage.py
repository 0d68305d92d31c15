"""Whatever becomes of the bytes on the disk: no exception, no record altered, and what is missing is told."""

import asyncio
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandpost.bus import segment
from sandpost.bus.contract import Batch, Missing, Record, Start
from sandpost.bus.local import LocalReader
from sandpost.bus.local_append import Appender
from sandpost.bus.local_pieces import Piece, Place, Stream, at_once, begin_of, patiently, read, stream_at
from sandpost.bus.local_places import begin
from sandpost.bus.retention import Limits
from support.bus import Items, batch, line, number_of, run, take

LIMITS = Limits(stream_bytes=16 * 256 * 1024)
RECORDS = 1200


def append(folder: Path, *batches: Batch) -> None:
    """Append with a writer of its own, in this thread."""
    appender = Appender(str(folder), limits=LIMITS, open_files=8)
    appender.open()
    try:
        outcome = appender.append("acme", batches)
        assert (outcome.done, outcome.error) == (len(batches), None)
    finally:
        appender.close()


def read_all(folder: Path, start: Start) -> Items:
    """Return what is there, each piece read both ways."""
    stream = stream_at(str(folder), "acme")
    items, place = begin(stream, start)
    found = list(items)
    while place is not None:
        piece = read(stream, place, patiently)
        assert piece == _at_once(stream, place, piece)
        if not piece.items:
            break
        found += piece.items
        place = piece.place
    return found


def _at_once(stream: Stream, place: Place, otherwise: Piece) -> Piece:
    try:
        return read(stream, place, at_once)
    except BlockingIOError:
        return otherwise


def check(items: Items, first: int, end: int) -> None:
    """Each record is as it was written, and those from `first` to before `end` are there or told to be missing, in order."""
    expected = first
    for item in items:
        if isinstance(item, Record):
            assert item.offset == expected
            assert number_of(item) == item.offset
            expected += 1
        else:
            assert item.first == expected < item.next_
            expected = item.next_
    assert expected >= end


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a stream of four segments, with frames of all sizes."""
    folder = tmp_path_factory.mktemp("made") / "streams"
    chance = random.Random(1)
    batches = []
    number = 0
    while number < RECORDS:
        count = min(chance.choice((1, 2, 7, 60)), RECORDS - number)
        batches.append(
            batch("acme", range(number, number + count), size=chance.choice((0, 300, 2500)), at=float(number))
        )
        number += count
    append(folder, *batches)
    assert len(list((folder / "acme").glob("*.seg"))) >= 4
    return folder


@pytest.fixture(scope="module")
def heads(made: Path) -> list[tuple[str, int]]:
    """Return where the frames begin."""
    found = []
    for path in sorted((made / "acme").glob("*.seg")):
        data = path.read_bytes()
        at = 0
        while at < len(data):
            head = segment.head_at(data, at, segment.seed_of("acme"))
            assert head is not None
            found.append((path.name, at))
            at += head.size
    return found


@pytest.fixture
def copied(made: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(made, Path(folder) / "streams"))


def test_what_is_not_damaged_is_read_whole(made: Path) -> None:
    for start, first in ((Start(offset=0), 0), (Start(tail=RECORDS - 7), 7), (Start(offset=1000), 1000)):
        items = read_all(made, start)
        check(items, first, RECORDS)
        assert not [item for item in items if isinstance(item, Missing)]


@pytest.mark.long
@settings(max_examples=300)
@given(data=st.data())
def test_flipped_bits_alter_no_record_and_what_they_cost_is_told(
    made: Path, heads: list[tuple[str, int]], data: st.DataObject
) -> None:
    files = sorted(path.name for path in (made / "acme").iterdir())
    anywhere = st.sampled_from(files).flatmap(
        lambda name: st.tuples(st.just(name), st.integers(0, (made / "acme" / name).stat().st_size - 1))
    )
    in_a_head = st.builds(lambda place, more: (place[0], place[1] + more), st.sampled_from(heads), st.integers(0, 52))
    flips = data.draw(
        st.lists(st.tuples(st.one_of(anywhere, in_a_head), st.integers(1, 255)), min_size=1, max_size=8), label="flips"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(made, Path(scratch) / "streams"))
        for (name, at), bits in flips:
            path = folder / "acme" / name
            blob = bytearray(path.read_bytes())
            blob[at] ^= bits
            path.write_bytes(blob)
        # What is behind the last readable frame may be one that is being written: it is told with the next one.
        check(read_all(folder, Start(offset=0)), 0, 0)
        for start in (Start(tail=50), Start(since=700.0), Start(offset=333), Start()):
            read_all(folder, start)
        append(folder, batch("acme", [RECORDS]))
        items = read_all(folder, Start(offset=0))
        *items, last = items
        assert isinstance(last, Record)
        assert (last.line + b"\n", last.offset >= RECORDS) == (line(RECORDS), True)
        check(items, 0, RECORDS)


@settings(max_examples=100)
@given(data=st.data())
def test_blocks_of_zeros_or_rubbish_alter_no_record(made: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(path.name for path in (made / "acme").iterdir())))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(made, Path(scratch) / "streams"))
        path = folder / "acme" / name
        blob = path.read_bytes()
        at = data.draw(st.integers(0, len(blob)))
        size = data.draw(st.integers(0, 20_000))
        rubbish = data.draw(st.one_of(st.just(bytes(size)), st.binary(max_size=100), st.just(segment.MAGIC * 20)))
        kept = data.draw(st.booleans())
        path.write_bytes(blob[:at] + rubbish + blob[at + (len(rubbish) if kept else 0) :])
        check(read_all(folder, Start(offset=0)), 0, 0)
        append(folder, batch("acme", [RECORDS]))
        *items, last = read_all(folder, Start(offset=0))
        assert isinstance(last, Record)
        assert last.offset >= RECORDS
        check(items, 0, RECORDS)


def test_a_frame_torn_at_any_byte_is_cut_off_and_nobody_is_told_of_it(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    append(whole, batch("acme", [0, 1]), batch("acme", [2]))
    path = whole / "acme" / f"{0:020d}.seg"
    before = path.stat().st_size
    append(whole, batch("acme", [3, 4], size=200))
    blob = path.read_bytes()
    for size in range(before, len(blob)):
        folder = Path(shutil.copytree(whole, tmp_path / "torn"))
        (folder / "acme" / path.name).write_bytes(blob[:size])
        assert [number_of(item) for item in read_all(folder, Start(offset=0))] == [0, 1, 2], size
        appender = Appender(str(folder), limits=LIMITS, open_files=8)
        appender.open()
        assert appender.positions({"s.1": "acme"}, {}) == {"s.1": 3}
        appender.close()
        # The first is shorter than what was torn: nothing of that may stay behind it.
        append(folder, batch("acme", [3]))
        append(folder, batch("acme", [4, 5]))
        items = read_all(folder, Start(offset=0))
        check(items, 0, 6)
        assert len(items) == 6
        shutil.rmtree(folder)


def test_zeros_behind_the_last_frame_are_told_and_no_offset_is_given_twice(copied: Path) -> None:
    last = max((copied / "acme").glob("*.seg"))
    with open(last, "ab") as file:
        file.write(bytes(5000))
    assert len(read_all(copied, Start(offset=0))) == RECORDS
    append(copied, batch("acme", [RECORDS]))
    *items, lost, after = read_all(copied, Start(offset=0))
    check(items, 0, RECORDS)
    assert isinstance(lost, Missing)
    assert isinstance(after, Record)
    # So many records can have been in 5,000 bytes.
    assert (lost.first, lost.next_) == (RECORDS, RECORDS + 5000 // 3)
    assert after.offset >= lost.next_
    assert read_all(copied, Start(tail=1)) == [after]
    assert read_all(copied, Start(offset=RECORDS + 9)) == [Missing(RECORDS + 9, lost.next_, lost.why), after]
    assert read_all(copied, Start(offset=after.offset)) == [after]


def test_a_frame_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "streams"
    append(folder, batch("acme", [0]), batch("acme", [1, 2, 3]))
    path = folder / "acme" / f"{0:020d}.seg"
    blob = path.read_bytes()
    first = segment.head_at(blob, 0, segment.seed_of("acme"))
    assert first is not None
    stream = stream_at(str(folder), "acme")
    for size in range(first.size, len(blob)):
        path.write_bytes(blob[:size])
        items, place = read(stream, begin_of(0), patiently)
        assert [number_of(item) for item in items] == [0]
        assert place is not None
        assert read(stream, place, patiently).items == ()
        path.write_bytes(blob)
        assert [number_of(item) for item in read(stream, place, patiently).items] == [1, 2, 3]


def test_a_file_that_grew_beyond_all_measure_is_not_read_to_its_end(copied: Path) -> None:
    last = max((copied / "acme").glob("*.seg"))
    with open(last, "r+b") as file:
        file.truncate(1 << 40)
    assert len(read_all(copied, Start(offset=0))) == RECORDS
    append(copied, batch("acme", [RECORDS]))
    *_, after = read_all(copied, Start(offset=0))
    assert isinstance(after, Record)
    assert after.line + b"\n" == line(RECORDS)


def test_all_of_it_in_a_reader_that_follows(copied: Path) -> None:
    first = min((copied / "acme").glob("*.seg"))
    blob = bytearray(first.read_bytes())
    blob[100_000] ^= 255
    first.write_bytes(blob)

    async def body() -> None:
        reader = LocalReader(str(copied))
        pieces = reader.follow("acme", Start(offset=0))
        items: Items = []
        while not items or not isinstance(items[-1], Record) or items[-1].offset != RECORDS - 1:
            items += await take(pieces, 1)
        check(items, 0, RECORDS)
        missing = [item for item in items if isinstance(item, Missing)]
        assert len(missing) == 1
        assert "damaged" in missing[0].why
        waiting = asyncio.create_task(take(pieces, 1))
        append(copied, batch("acme", [RECORDS]))
        assert number_of((await waiting)[0]) == RECORDS
        await pieces.aclose()
        await reader.close()

    run(body())

"""The pure parts of the `kafka` driver: chunks, index, ring."""

import json
import random
import secrets

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sandpost.bus.contract import Batch, Missing, Record
from sandpost.bus.kafka import KafkaSettings, KafkaWriter
from sandpost.bus.kafka_index import GUARD, KEPT_MARKS, SPAN, Extents, Index, Marker, Marks, decode, encode
from sandpost.bus.kafka_tail import Ring
from sandpost.bus.kafka_wire import (
    EVERYBODY,
    LINES,
    Chunk,
    Label,
    Rubbish,
    Seen,
    chunk,
    header,
    offset_of,
    partition_of,
    parts,
    pieces,
    place_of,
    records,
)

EDGES = st.sampled_from([-(2**63), -1, 0, 1, 2**63 - 1, 2**63, 2**64 - 1])
MARKS = st.lists(st.tuples(st.text(max_size=80), EDGES, EDGES) | st.tuples(st.binary(), st.floats()), max_size=4)


@given(st.binary(max_size=64) | st.builds(msgspec.msgpack.encode, st.tuples(st.just(1), EDGES, MARKS)))
def test_whatever_lies_in_the_index_topic_can_be_taken_or_is_left(value: bytes) -> None:
    marks = decode(value)
    if marks is not None:
        Index().add(marks)


def lines(count: int) -> bytes:
    return b"".join(b'{"n":%d}\n' % number for number in range(count))


def test_partitions_are_those_of_kafkas_own_producers() -> None:
    # By Kafka's own tests of its murmur2 (UtilsTest), made positive as its partitioner does.
    for key, value in {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}.items():
        assert partition_of(key, 1_000) == (value & 0x7FFFFFFF) % 1_000


@given(st.integers(0, (1 << 41) - 1), st.integers(0, LINES - 1))
def test_offsets_are_places_and_exact_in_json(at: int, line: int) -> None:
    assert place_of(offset_of(at, line)) == (at, line)
    assert int(json.loads(json.dumps(float(offset_of(at, line))))) == offset_of(at, line)


@given(st.integers(1, 3 * LINES))
def test_a_batch_is_its_chunks(count: int) -> None:
    batch = Batch(stream="a", source="s", end=1, lines=lines(count), count=count, time=0.0)
    found = list(parts(batch))
    assert b"".join(part for part, _ in found) == batch.lines
    assert [part.count(b"\n") for part, _ in found] == [many for _, many in found]
    assert all(0 < many <= LINES for _, many in found)


@given(
    st.one_of(st.none(), st.binary(max_size=40), st.just(lines(2))),
    st.lists(st.tuples(st.sampled_from(["sandpost", "x"]), st.one_of(st.none(), st.binary(max_size=40))), max_size=2),
)
def test_whatever_lies_there_is_a_chunk_or_rubbish(
    value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    assert isinstance(chunk(5, 1, value, headers), Rubbish)


def test_a_chunk_is_read_as_it_was_written() -> None:
    found = chunk(5, 1, lines(3), list(header(Label(1, 7, 1, "s", 9, 0, 3))))
    assert isinstance(found, Chunk)
    assert records(found) == [Record(offset_of(5, line), b'{"n":%d}' % line) for line in range(3)]
    assert records(found, 2) == [Record(offset_of(5, 2), b'{"n":2}')]


@given(st.lists(st.one_of(st.integers(0, 3_000), st.none()), max_size=50))
def test_pieces_are_bounded_and_all(sizes: list[int | None]) -> None:
    found: list[Record | Missing] = [
        Missing(number, number + 1, "") if size is None else Record(number, b"x" * 100 * size)
        for number, size in enumerate(sizes)
    ]
    cut = list(pieces(found))
    assert [one for piece in cut for one in piece] == found
    for piece in cut:
        assert 0 < len(piece) <= 1_000
        assert len(piece) == 1 or sum(len(one.line) for one in piece if isinstance(one, Record)) <= 256 << 10


def test_what_was_seen_is_bounded() -> None:
    seen = Seen()
    for number in range(5_000):
        assert not seen.again(Label(1, number, number, f"s{number}", 1, 0, 1))
    assert seen.again(Label(1, 4_999, 4_999, "", 1, 0, 1))
    assert seen.again(Label(1, 1 << 40, 0, "s4999", 1, 0, 1))
    assert max(len(seen._ends), len(seen._numbers)) <= Seen.LIMIT


@given(st.randoms(use_true_random=False))
def test_a_jump_passes_over_no_record_of_the_stream(rnd: random.Random) -> None:
    # Two writers, a few streams of very different frequency; marks come a little later than their chunks.
    index, markers = Index(), (Marker(), Marker())
    places: dict[str, list[int]] = {"often": [], "seldom": [], "twice": []}
    late: list[Marks] = []
    at = 0
    for _ in range(rnd.randrange(1, 400)):
        at += rnd.choice([1, 1, 1, 1, 5, 100])
        stream = rnd.choice(["often"] * 30 + ["seldom"] * 2 + ["twice"])
        if stream == "twice" and len(places[stream]) >= 2:
            continue
        places[stream].append(at)
        who = rnd.randrange(2)
        mark = markers[who].note(stream, at, rnd.choice([1, 400]))
        if mark is not None:
            late.append(Marks(1, who, [mark]))
        while len(late) > rnd.randrange(3):
            known = decode(encode(late[0].writer, late[0].marks))
            assert known is not None
            index.add(known)
            del late[0]
    end = at + 1
    for marks in late:
        # What is behind is still to come: a reader relies on the last that it always reads.
        if marks.marks[0].at < end - GUARD:
            index.add(marks)
    for stream, there in places.items():
        spans = index.spans(stream, 0, end)
        assert all(any(start <= place < stop for start, stop in spans) for place in there)
        position = 0
        for place in there:
            while (following := index.jump(stream, position, end)) < place:
                assert following >= position
                position = following + 1
            assert following <= place
            position = place + 1
    assert index.jump("never", 10 * SPAN, 10**9) in {10 * SPAN, 10**9 - GUARD}


def test_marks_count_the_records_between_them() -> None:
    marker, extents = Marker(), Extents()
    for at in range(2_000):
        mark = marker.note("a", at, 10)
        if mark is not None:
            extents.add(1, mark.at, mark.before)
    assert list(extents.starts)[:3] == [0, 100, 200]
    assert extents.lines(0) == 1_000
    assert extents.lines(len(extents.starts) - 1) is None
    extents.add(2, 150, 0)
    # Who reads must count where another writer's extent lies between, or reaches into it.
    assert [extents.lines(number) for number in range(5)] == [1_000, None, None, None, None]
    assert extents.lines(6) == 1_000


def test_what_a_reader_keeps_of_the_index_is_bounded() -> None:
    extents = Extents()
    for number in range(10_000):
        extents.add(1, number * SPAN, number)
    assert KEPT_MARKS <= len(extents.starts) <= 2 * KEPT_MARKS
    assert not extents.complete
    index = Index()
    index.streams["a"], index.floor = extents, 0
    # Before what it keeps it reads all.
    assert index.jump("a", 5 * SPAN + 3, 10**9) == 5 * SPAN + 3
    index.prune(20_000 * SPAN)
    assert index.streams == {}


def test_what_follows_a_mark_that_is_under_way_is_told_as_kept_with_it() -> None:
    bus = KafkaWriter(KafkaSettings(servers="localhost:1", partitions=1), "host")
    for end in (1, 2):
        bus.append([Batch(stream="a", source="s", end=end, lines=lines(1), count=1, time=0.0)])
    data, marks = bus._data[0], bus._marks[0]
    for at, item in enumerate(data.waiting):
        data.on_kept([item], at)
        assert (bus.reached(), bus._news) == ({}, False)
    marks.on_kept(list(marks.waiting), 0)
    assert (bus.reached(), bus._ends) == ({"a": offset_of(2)}, {"s": 2})


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", EVERYBODY]), st.integers(1, 400)), max_size=60))
def test_a_ring_is_bounded_and_has_the_last(put: list[tuple[bytes, int]]) -> None:
    ring = Ring(0, 2_000)
    every: list[tuple[bytes, Chunk | Rubbish]] = []
    for at, (key, size) in enumerate(put):
        label = Label(1, 1, at, "", 0, 0, 1)
        what = Rubbish(at, at + 1, "") if key == EVERYBODY else Chunk(at, label, secrets.token_bytes(size), 0)
        every.append((key, what))
        ring.add([(key, what)], at + 1)
        assert ring._size <= 2_000
    assert ring.next_ == len(put)
    for key in (b"a", b"b"):
        wanted = [what for name, what in every if name in {key, EVERYBODY} and what.at >= ring.start]
        assert ring.get(key, ring.start) == wanted
        assert ring.get(key, ring.next_) == []

import struct
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.logs import bunyan
from sandpost.logs.frames import MAX_FRAME, MAX_TEXT, FrameCutter
from sandpost.logs.records import Scribe
from sandpost.logs.said import Said
from support.corpus import lines, mutated

SCRIBE = Scribe(hostname="h", tenant="t", sandbox_id="s")


def frame(text: bytes, level: int = 30, req_id: bytes = b"r1", flags: int = 0) -> bytes:
    """A frame laid out by hand from docs/runtime.md."""
    return struct.pack(">BBBBHBB", 0xF5, 1, level, flags, len(text), len(req_id), 0) + req_id + text


def cut(data: bytes, sizes: list[int], end: int = 0, *, torn: bool = False) -> tuple[list[Said], int]:
    cutter = FrameCutter(end, torn=torn)
    said = []
    for size in sizes:
        said += cutter.feed(data[:size])
        data = data[size:]
    said += cutter.feed(data)
    return said, cutter.forged


frames = st.builds(
    frame,
    st.binary(max_size=60),
    st.sampled_from([10, 20, 30, 40, 50, 60, 0, 255]),
    st.sampled_from([b"", b"r1", b"r" * 64, b"r" * 65, b"\x00", b"r\xf5"]),
    st.integers(0, 5),
)
rubbish = st.one_of(st.binary(max_size=20), st.sampled_from([b"\xf5", b"\xf5\x01", b"\xf5\xf5\x01\x1e", b"x" * 5000]))
streams = st.lists(st.one_of(frames, rubbish), max_size=10).map(b"".join)


@given(streams, st.lists(st.integers(0, 100), max_size=12))
def test_records_do_not_depend_on_how_the_bytes_arrive(data: bytes, sizes: list[int]) -> None:
    assert cut(data, sizes) == cut(data, [])


@given(st.lists(st.tuples(st.sampled_from(["feed", "skip", "flush"]), streams), max_size=8))
def test_nothing_raises_and_memory_is_bounded(steps: list[tuple[str, bytes]]) -> None:
    cutter = FrameCutter()
    for what, data in steps:
        if what == "feed":
            said = cutter.feed(data)
            assert all(one.level in {10, 20, 30, 40, 50} and len(one.text) <= MAX_TEXT for one in said)
            assert all(one.req_id is None or (one.req_id.isprintable() and one.req_id.isascii()) for one in said)
        elif what == "skip":
            assert cutter.skip(data) >= 0
        else:
            cutter.flush()
            assert not cutter.pending
        assert len(cutter._buffer) <= MAX_FRAME


def test_frame_is_a_record_with_its_level_and_request() -> None:
    data = frame(b"hello", 40, b"abc-1") + frame(b"", 10, b"") + frame("\u20ac".encode(), 50)
    said = [Said(40, "abc-1", b"hello", 18), Said(10, None, b"", 26), Said(50, "r1", "\u20ac".encode(), 39)]
    assert cut(data, []) == (said, 0)


@pytest.mark.parametrize(
    ("id_", "req_id", "trace_id"),
    [
        (b"r1 " + b"ab" * 16, "r1", "ab" * 16),
        # What has another form is taken as it is.
        (b"r1 " + b"AB" * 16, "r1 " + "AB" * 16, None),
        (b"r1 " + b"ab" * 15, "r1 " + "ab" * 15, None),
        (b" " + b"ab" * 16, " " + "ab" * 16, None),
        (b"r1 2 " + b"ab" * 16, "r1 2 " + "ab" * 16, None),
        (b"ab" * 16, "ab" * 16, None),
    ],
)
def test_a_request_id_may_have_its_trace_behind_it(id_: bytes, req_id: str, trace_id: str | None) -> None:
    (said,), forged = cut(frame(b"hello", 30, id_), [])
    assert (said.req_id, said.trace_id, said.text, forged) == (req_id, trace_id, b"hello", 0)


def test_frames_with_more_following_are_one_record() -> None:
    data = frame(b"one ", flags=1) + frame(b"\xe2\x82", flags=1) + frame(b"\xac", flags=0) + frame(b"next")
    assert [one.text for one in cut(data, [])[0]] == ["one \u20ac".encode(), b"next"]


def test_record_of_another_call_does_not_join() -> None:
    data = frame(b"begun", req_id=b"a", flags=1) + frame(b"other", req_id=b"b")
    assert cut(data, [])[0] == [Said(30, "a", b"begun", 14), Said(30, "b", b"other", 28)]


def test_record_without_end_is_cut() -> None:
    said, _ = cut(frame(b"x" * 4000, flags=1) * 40, [])
    assert said
    assert all(0 < len(one.text) <= MAX_TEXT for one in said)
    said, _ = cut(frame(b"", flags=1) * 10_000, [])
    assert len(said) == 2


def test_forged_bytes_count_and_the_next_frame_is_read() -> None:
    assert cut(b"rubbish" + frame(b"good"), []) == ([Said(30, "r1", b"good", 21)], 1)
    assert cut(frame(b"one") + b"\xf5\x02rubbish" + frame(b"two"), []) == (
        [Said(30, "r1", b"one", 13), Said(30, "r1", b"two", 35)],
        1,
    )
    # A frame that says it is longer than one can be.
    said, forged = cut(struct.pack(">BBBBHBB", 0xF5, 1, 30, 0, 65535, 64, 0) + frame(b"good"), [])
    assert ([one.text for one in said], forged) == ([b"good"], 1)


def test_flush_gives_what_was_begun_and_forgets_half_a_frame() -> None:
    cutter = FrameCutter()
    assert cutter.feed(frame(b"begun", flags=1) + frame(b"half")[:-1]) == []
    assert (cutter.pending, cutter.flush(), cutter.pending) == (True, [Said(30, "r1", b"begun", 15)], False)
    assert cutter.forged == 1
    assert cutter.feed(frame(b"next")) == [Said(30, "r1", b"next", 42)]


def test_skip_counts_frames_and_finds_the_next_one() -> None:
    cutter = FrameCutter()
    data = frame(b"a") * 10
    assert cutter.skip(data[:-3]) == 10
    assert [one.text for one in cutter.feed(data[-3:] + frame(b"next"))] == [b"next"]
    assert cutter.forged == 0
    # One that was begun is lost with them, and is one, in however many frames it came.
    cutter.feed(frame(b"begun", flags=1))
    assert cutter.skip(frame(b"goes on", flags=1) + frame(b"end")) == 1
    cutter = FrameCutter()
    cutter.feed(frame(b"a")[:-1])
    assert cutter.skip(frame(b"a")[-1:] + frame(b"b")) == 2


def notice(count: int) -> bytes:
    """What the runtime says of `count` records that it dropped itself."""
    text = f"{count} log records ({count * 10} bytes) were dropped: they came faster than they are read"
    return frame(text.encode(), 40, b"", 2)


def test_what_tells_of_lost_lines_stands_for_them_when_it_is_lost_itself() -> None:
    (one,) = FrameCutter().feed(notice(1204))
    assert one.lines == 1204
    # What a program says in these words tells of nothing.
    assert [one.lines for one in FrameCutter().feed(frame(b"1204 log records (1 bytes)") + notice(2))] == [1, 2]
    assert FrameCutter().skip(frame(b"a") + notice(1204) + frame(b"b")) == 1206


lossy = st.lists(
    st.one_of(
        st.integers(0, 9_999_999).map(lambda count: (notice(count), count)),
        st.integers(1, 5).map(lambda n: (frame(b"x" * n, flags=1) * (n - 1) + frame(b"end" * n), 1)),
    ),
    max_size=8,
)


@given(lossy, st.lists(st.integers(0, 60), max_size=40))
def test_however_the_bytes_arrive_each_line_is_read_or_counted(
    parts: list[tuple[bytes, int]], sizes: list[int]
) -> None:
    data, total = b"".join(one for one, _ in parts), sum(count for _, count in parts)
    cutter, at, counted = FrameCutter(), 0, 0
    for number, size in enumerate([*sizes, len(data)]):
        piece = data[at : at + size]
        at += len(piece)
        counted += cutter.skip(piece) if number % 2 else sum(one.lines for one in cutter.feed(piece))
    assert counted + sum(one.lines for one in cutter.feed(b"")) == total


CORPUS = lines(Path(__file__).with_name("corpus") / "frames.hex")


@given(st.lists(mutated(CORPUS), max_size=4), st.lists(st.integers(0, 40), max_size=8))
def test_streams_of_the_corpus_and_what_is_near_them_are_read_within_bounds(
    parts: list[bytes], sizes: list[int]
) -> None:
    data = b"".join(parts)
    said, forged = cut(data, sizes)
    assert (said, forged) == cut(data, [])
    # A record has no more than came, and no bytes are counted twice.
    assert sum(len(one.text) for one in said) + forged <= len(data)
    for one in said:
        assert msgspec.json.decode(SCRIBE.line(one, bunyan.timestamp(0.0), raw=False))["sandbox"]


records = st.tuples(
    st.sampled_from([10, 20, 30, 40, 50]),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=64),
    st.text(max_size=3000),
)


@given(st.lists(records, max_size=4), st.integers(1, 2000), st.lists(st.integers(0, 5000), max_size=6))
def test_what_is_written_as_the_runtime_writes_is_read_back(
    written: list[tuple[int, str, str]], piece: int, sizes: list[int]
) -> None:
    data = b""
    for level, req_id, text in written:
        pieces = [text.encode()[at : at + piece] for at in range(0, len(text.encode()), piece)] or [b""]
        for number, one in enumerate(pieces):
            data += frame(one, level, req_id.encode(), int(number < len(pieces) - 1))
    said, forged = cut(data, sizes)
    assert forged == 0
    assert [one[:3] for one in said] == [(level, req_id or None, text.encode()) for level, req_id, text in written]


@given(streams, st.data())
def test_a_fresh_decoder_goes_on_at_the_end_of_any_record(data: bytes, chosen: st.DataObject) -> None:
    said, _ = cut(data, [])
    assert [one.end for one in said] == sorted({one.end for one in said})
    number = chosen.draw(st.integers(0, len(said)))
    end = said[number - 1].end if number else 0
    assert cut(data[end:], [], end)[0] == said[number:]


@given(streams, st.integers(0, 200), st.integers(0, 200))
def test_a_fresh_decoder_goes_on_wherever_another_one_may(data: bytes, fed: int, skipped: int) -> None:
    cutter = FrameCutter()
    cutter.feed(data[:fed])
    assert cutter.end <= fed
    rest, _ = cut(data[cutter.end :], [], cutter.end, torn=cutter.torn)
    ahead = FrameCutter()
    assert ahead.feed(data[:fed]) + ahead.feed(data[fed:]) == cut(data[:fed], [])[0] + rest
    cutter.skip(data[fed : fed + skipped])
    end, torn = cutter.end, cutter.torn
    assert cutter.feed(data[fed + skipped :]) == cut(data[end:], [], end, torn=torn)[0]

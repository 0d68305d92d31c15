from hypothesis import given
from hypothesis import strategies as st

from sandpost.logs.lines import MAX_LINE, LineCutter
from sandpost.logs.said import Said

# Bytes with many line ends, long stretches and characters of several bytes.
pieces = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\n", b"\r\n", b"x" * MAX_LINE, b"x" * (MAX_LINE - 1), "\u20ac".encode() * 6000, b"\xf0\x9f"]),
)
streams = st.lists(pieces, max_size=8).map(b"".join)


def cut(data: bytes, sizes: list[int], end: int = 0, *, torn: bool = False) -> list[Said]:
    cutter = LineCutter(30, end, torn=torn)
    said = []
    for size in sizes:
        said += cutter.feed(data[:size])
        data = data[size:]
    said += cutter.feed(data)
    return said + cutter.flush()


@given(streams, st.lists(st.integers(0, 20_000), max_size=12))
def test_records_do_not_depend_on_how_the_bytes_arrive(data: bytes, sizes: list[int]) -> None:
    assert cut(data, sizes) == cut(data, [])


@given(streams)
def test_no_byte_but_line_ends_is_lost_and_no_record_is_too_long(data: bytes) -> None:
    said = cut(data, [])
    assert all(len(one.text) <= MAX_LINE and one.level == 30 and one.req_id is None for one in said)
    strip = bytes.maketrans(b"", b"")
    assert b"".join(one.text for one in said).translate(strip, b"\r\n") == data.translate(strip, b"\r\n")


def test_lines_end_at_newlines_and_the_rest_waits() -> None:
    cutter = LineCutter(50)
    assert [one.text for one in cutter.feed(b"a\nb\r\n\nc")] == [b"a", b"b", b""]
    assert (cutter.pending, cutter.flush(), cutter.pending) == (True, [Said(50, None, b"c", 7)], False)
    assert cutter.flush() == []


def test_line_of_exactly_the_bound_is_one_record() -> None:
    assert [len(one.text) for one in cut(b"x" * MAX_LINE + b"\ny", [])] == [MAX_LINE, 1]
    assert [len(one.text) for one in cut(b"x" * (MAX_LINE + 1) + b"\n", [])] == [MAX_LINE, 1]


def test_long_line_is_cut_between_characters() -> None:
    said = cut("\u20ac".encode() * 20_000 + b"\n", [])
    assert "".join(one.text.decode() for one in said) == "\u20ac" * 20_000
    assert len(said) == 4


def test_skipped_lines_are_counted_where_they_begin() -> None:
    cutter = LineCutter(30)
    cutter.feed(b"begun ")
    assert cutter.skip(b"and dropped\nanother\npartial") == 3
    assert not cutter.pending
    assert cutter.skip(b" of it") == 0
    assert cutter.skip(b" end\n") == 0
    assert cutter.skip(b"") == 0
    assert cutter.skip(b"x\n") == 1
    assert [one.text for one in cutter.feed(b"whole\n")] == [b"whole"]


def test_rest_of_a_skipped_line_is_left_out() -> None:
    cutter = LineCutter(30)
    cutter.skip(b"half")
    assert cutter.feed(b" and more") == []
    assert [one.text for one in cutter.feed(b" end\nnext\n")] == [b"next"]


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=30)), max_size=10))
def test_memory_is_bounded_and_nothing_raises(steps: list[tuple[bool, bytes]]) -> None:
    cutter = LineCutter(30)
    for skip, data in steps:
        if skip:
            assert 0 <= cutter.skip(data * 1000) <= len(data) * 1000
        else:
            cutter.feed(data * 1000)
        assert len(cutter._rest) <= MAX_LINE


@given(streams, st.data())
def test_a_fresh_decoder_goes_on_at_the_end_of_any_record(data: bytes, chosen: st.DataObject) -> None:
    said = cut(data, [])
    assert [one.end for one in said] == sorted({one.end for one in said})
    number = chosen.draw(st.integers(0, len(said)))
    end = said[number - 1].end if number else 0
    assert cut(data[end:], [], end) == said[number:]


@given(streams, st.integers(0, 40_000), st.integers(0, 40_000))
def test_a_fresh_decoder_goes_on_behind_what_was_skipped(data: bytes, fed: int, skipped: int) -> None:
    cutter = LineCutter(30)
    cutter.feed(data[:fed])
    begin = cutter.end
    cutter.skip(data[fed : fed + skipped])
    end, torn, rest = cutter.end, cutter.torn, data[fed + skipped :]
    assert begin <= end <= len(data)
    if not cutter.pending:
        assert cutter.feed(rest) + cutter.flush() == cut(data[end:], [], end, torn=torn)

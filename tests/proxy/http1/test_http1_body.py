"""Bodies: the same content, end and faults however the bytes are split."""

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandpost.model.errors import MalformedRequest
from sandpost.proxy.http1.body import CHUNKED, MAX_TRAILERS, NONE, UNTIL_CLOSE, Body, BodyReader, Kind
from sandpost.proxy.http1.errors import BrokenResponse
from sandpost.proxy.http1.render import LAST_CHUNK, chunk
from support.http1_feeding import body_outcome, bytewise, cut, places, request

SIZE_RULE = "1 to 16 hexadecimal digits"


@pytest.mark.parametrize("body", [NONE, Body(Kind.LENGTH, 0)])
def test_no_body_is_finished_at_once_and_everything_is_excess(body: Body) -> None:
    assert body.empty
    assert body_outcome(body, [], ends=True) == (b"", True, b"")
    assert body_outcome(body, [b"GET", b" /"]) == (b"", True, b"GET /")


def test_length_ends_where_it_says() -> None:
    assert body_outcome(Body(Kind.LENGTH, 5), [b"hel", b"loGET /"]) == (b"hello", True, b"GET /")


def test_until_close_ends_with_the_connection() -> None:
    assert body_outcome(UNTIL_CLOSE, [b"hel", b"", b"lo"]) == (b"hello", False, b"")
    assert body_outcome(UNTIL_CLOSE, [b"hel", b"lo"], ends=True) == (b"hello", True, b"")


def test_chunks_are_joined_and_trailers_dropped() -> None:
    data = b"5\r\nhello\r\n00A\r\n, world!!!\r\n000\r\nX-Trailer: a\r\nContent-Length: 7\r\n\r\nGET /"
    assert body_outcome(CHUNKED, [data]) == (b"hello, world!!!", True, b"GET /")
    assert body_outcome(CHUNKED, [b"f\r\nabcdefghijklmno\r\n0\r\n\r\n"]) == (b"abcdefghijklmno", True, b"")


@pytest.mark.parametrize(
    ("body", "pieces", "rule"),
    [
        (Body(Kind.LENGTH, 5), [b"hel"], "2 bytes before its Content-Length"),
        (CHUNKED, [], "before its last chunk"),
        (CHUNKED, [b"3\r\nab"], "before its last chunk"),
        (CHUNKED, [b"3\r\nabc\r\n"], "before its last chunk"),
        (CHUNKED, [b"3\r\nabc\r\n0\r\n"], "before its last chunk"),
        (CHUNKED, [b"0\r\nX: y\r\n"], "before its last chunk"),
    ],
)
def test_end_of_input_before_the_end_of_the_body_is_told(body: Body, pieces: list[bytes], rule: str) -> None:
    told = body_outcome(body, pieces, ends=True)
    assert isinstance(told, str)
    assert rule in told


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"\r\n", SIZE_RULE),
        (b" 5\r\nhello", SIZE_RULE),
        (b"5 \r\nhello", SIZE_RULE),
        (b"+5\r\nhello", SIZE_RULE),
        (b"-5\r\nhello", SIZE_RULE),
        (b"0x5\r\nhello", SIZE_RULE),
        (b"5_0\r\nhello", SIZE_RULE),
        (b"g\r\n", SIZE_RULE),
        (b"5\nhello", SIZE_RULE),
        (b"5\rhello", SIZE_RULE),
        (b"5\r\r\nhello", SIZE_RULE),
        (b"5;a=b\r\nhello", SIZE_RULE),
        (b"5;\r\nhello", SIZE_RULE),
        (b"5;a\nhello", SIZE_RULE),
        (b"\xb2\r\nhello", SIZE_RULE),
        (b"5\x00\r\nhello", SIZE_RULE),
        (b"00000000000000005\r\nhello", SIZE_RULE),
        (b"10000000000000000\r\n", SIZE_RULE),
        (b"8000000000000000\r\n", "longer than 2^63-1"),
        (b"ffffffffffffffff\r\n", "longer than 2^63-1"),
        (b"5\r\nhello5\r\n", "not followed by CR LF"),
        (b"5\r\nhello\n0\r\n\r\n", "not followed by CR LF"),
        (b"5\r\nhello\r0\r\n\r\n", "not followed by CR LF"),
        (b"5\r\nhelloXX0\r\n\r\n", "not followed by CR LF"),
        (b"2\r\nabc\r\n0\r\n\r\n", "not followed by CR LF"),
        (b"0\r\n\n", "LF alone"),
        (b"0\r\n\rX", "CR stands without LF"),
        (b"0\r\nX: a\nY: b\r\n\r\n", "LF alone"),
        (b"0\r\nX: \x00\r\n\r\n", "control character 0x00"),
        (b"0\r\nX : a\r\n\r\n", "before the colon"),
        (b"0\r\n X: a\r\n\r\n", "folded"),
        (b"0\r\nGET / HTTP/1.1\r\n\r\n", "no colon"),
        (b"0\r\n" + b"X: y\r\n" * 101 + b"\r\n", "more than 100 trailers"),
        (b"0\r\nX: " + b"y" * MAX_TRAILERS, "longer than"),
        (b"0\r\nX: " + b"y" * MAX_TRAILERS + b"\r\n\r\n", "longer than"),
    ],
)  # fmt: skip
def test_bad_chunks_are_refused_by_their_rule_however_they_are_split(data: bytes, rule: str) -> None:
    whole = body_outcome(CHUNKED, [data])
    assert isinstance(whole, str), whole
    assert rule in whole
    assert body_outcome(CHUNKED, bytewise(data)) == whole


def test_fault_is_the_error_of_who_wrote_the_body() -> None:
    with pytest.raises(BrokenResponse) as broken:
        BodyReader(CHUNKED, BrokenResponse).feed(b"x")
    assert SIZE_RULE in broken.value.rule
    with pytest.raises(BrokenResponse):
        BodyReader(Body(Kind.LENGTH, 1), BrokenResponse).eof()
    with pytest.raises(MalformedRequest):
        BodyReader(CHUNKED).feed(b"x")


def test_large_pieces_are_not_copied() -> None:
    data = b"x" * 100_000
    assert BodyReader(Body(Kind.LENGTH, 200_000)).feed(data)[0] is data
    assert BodyReader(UNTIL_CLOSE).feed(data)[0] is data
    framed = chunk(data)
    (piece,) = BodyReader(CHUNKED).feed(framed)
    assert isinstance(piece, memoryview)
    assert piece.obj is framed


def test_many_tiny_chunks_come_out_as_few_pieces_and_a_share_at_a_time() -> None:
    reader = BodyReader(CHUNKED)
    data = b"1\r\na\r\n" * 5000 + LAST_CHUNK + b"next"
    content = b""
    for _ in range(5):
        pieces = reader.feed(data)
        assert len(pieces) <= 16
        assert sum(map(len, pieces)) <= 1024
        content += b"".join(pieces)
        assert reader.behind == (not reader.finished)
        data = b""
    assert content == b"a" * 5000
    assert (reader.finished, reader.excess) == (True, b"next")


def test_a_reader_that_is_behind_takes_more() -> None:
    reader = BodyReader(CHUNKED)
    content = b"".join(reader.feed(b"1\r\na\r\n" * 1500 + b"1\r"))
    content += b"".join(reader.feed(b"\nb\r\n" + LAST_CHUNK))
    assert content == b"a" * 1500 + b"b"
    assert (reader.finished, reader.behind) == (True, False)


def test_unfinished_lines_are_held_bounded() -> None:
    reader = BodyReader(CHUNKED)
    for byte in bytewise(b"0\r\nX: " + b"y" * (MAX_TRAILERS - 3)):
        reader.feed(byte)
        assert len(reader._pending) <= MAX_TRAILERS
    with pytest.raises(MalformedRequest):
        reader.feed(b"y")


@given(
    st.lists(st.binary(min_size=1, max_size=40) | st.binary(min_size=4090, max_size=4100), max_size=8),
    st.binary(max_size=9),
    places,
)
def test_rendered_chunks_are_read_back(contents: list[bytes], behind: bytes, cuts: list[int]) -> None:
    data = b"".join(map(chunk, contents)) + LAST_CHUNK
    assert body_outcome(CHUNKED, [*cut(data, cuts), behind], ends=True) == (b"".join(contents), True, behind)


@given(st.binary(max_size=60), st.integers(0, 70), places)
def test_length_takes_exactly_its_bytes(data: bytes, length: int, cuts: list[int]) -> None:
    expected = (data[:length], len(data) >= length, data[length:])
    assert body_outcome(Body(Kind.LENGTH, length), cut(data, cuts)) == expected


_scraps = [
    b"\r\n", b"\r\n", b"\r\n", b"\r", b"\n", b"0", b"0\r\n", b"0\r\n\r\n", b"1\r\na\r\n", b"5\r\nhello\r\n", b"a", b"F", b"3\r\n", b";x", b" ",
    b"X: y\r\n", b"X: y\r\n\r\n", b" folded\r\n", b"\x00", b"8000000000000000\r\n", b"g", b"0000000000000001\r\na\r\n",
]  # fmt: skip
chunk_soup = st.lists(st.sampled_from(_scraps) | st.binary(max_size=2), max_size=10).map(b"".join)


@given(chunk_soup, places)
@example(b"0\r\n" + b"X: y\r\n" * 99 + b"\r\nGET", [5, 9])
@settings(max_examples=400)
def test_splitting_changes_nothing(data: bytes, cuts: list[int]) -> None:
    whole = body_outcome(CHUNKED, [data])
    for pieces in (bytewise(data), cut(data, cuts)):
        assert body_outcome(CHUNKED, pieces) == whole


@given(chunk_soup)
@settings(max_examples=300)
def test_what_is_accepted_h11_reads_alike(data: bytes) -> None:
    ours = body_outcome(CHUNKED, [data])
    if isinstance(ours, str):
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    connection.next_event()
    content, ended = b"", False
    while type(event := connection.next_event()) in (h11.Data, h11.EndOfMessage):
        if isinstance(event, h11.Data):
            content += event.data
        else:
            ended = True
            break
    assert (content, ended) == ours[:2]
    assert not ended or connection.trailing_data[0] == ours[2]


@given(st.lists(st.tuples(st.binary(max_size=20), st.booleans()), min_size=1, max_size=5), st.integers(1, 50))
def test_pipelined_requests_come_out_in_order_whole(messages: list[tuple[bytes, bool]], step: int) -> None:
    wire = b""
    for n, (content, chunked) in enumerate(messages):
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(content)
        body = (chunk(content) if content else b"") + LAST_CHUNK if chunked else content
        wire += b"POST /%d HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" % (n, framing, body)
    seen: list[tuple[bytes, bytes]] = []
    while wire:
        head = request(wire)
        reader = BodyReader(head.body)
        content, rest = b"", wire[head.size :]
        while not reader.finished:
            content += b"".join(reader.feed(rest[:step]))
            rest = rest[step:]
        seen.append((head.target, content))
        wire = reader.excess + rest
    assert seen == [(b"/%d" % n, content) for n, (content, _) in enumerate(messages)]

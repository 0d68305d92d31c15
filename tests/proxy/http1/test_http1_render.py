"""What leaves the proxy: framing made anew, nothing hop-by-hop, no second head in any value."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.proxy.http1.body import CHUNKED, NONE, UNTIL_CLOSE, Body, Kind
from sandpost.proxy.http1.render import (
    CONTINUE,
    LAST_CHUNK,
    ORIGIN_WIDE,
    answer_framing,
    chunk,
    http_date,
    render_request,
    render_response,
)
from support.http1_feeding import methods, plain_fields, request, response, targets

OURS = [(b"x-sandpost-req-id", b"r1")]
LENGTH_3 = Body(Kind.LENGTH, 3)


def lines_of(head: bytes) -> list[bytes]:
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def test_request_keeps_end_to_end_fields_and_adds_ours_behind_them() -> None:
    head = render_request(
        "POST", b"/a?b", [(b"host", b"h:1"), (b"accept", b"*/*"), (b"x", b"")], body=LENGTH_3, extra=OURS
    )
    assert lines_of(head) == [
        b"POST /a?b HTTP/1.1",
        b"host: h:1",
        b"accept: */*",
        b"x: ",
        b"content-length: 3",
        b"x-sandpost-req-id: r1",
    ]


HOP = [
    b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"te", b"trailer", b"upgrade",
    b"content-length", b"proxy-authorization", b"proxy-authenticate",
]  # fmt: skip


@pytest.mark.parametrize("name", [*HOP, b"expect", b"x-sandpost-req-id", b"x-sandpost-anything", b"x-sandpost-"])
def test_request_drops_what_belongs_to_the_connection_or_to_us(name: bytes) -> None:
    head = render_request("GET", b"/", [(b"host", b"a"), (name, b"1"), (b"x-sandposted", b"1")])
    assert lines_of(head)[1:] == [b"host: a", b"x-sandposted: 1"]


@pytest.mark.parametrize("name", [*HOP, *sorted(ORIGIN_WIDE), b"date", b"x-sandpost-code"])
def test_response_drops_what_belongs_to_the_connection_the_origin_or_us(name: bytes) -> None:
    head = render_response(200, [(name, b"1"), (b"server", b"mine"), (b"content-type", b"t")], framing=LENGTH_3)
    assert lines_of(head) == [b"HTTP/1.1 200 OK", b"server: mine", b"content-type: t", b"content-length: 3"]


@pytest.mark.parametrize("connection", [b"x-a, close, X-B", b"X-A,x-b,x-sandpost-y"])
def test_fields_that_connection_names_are_dropped_too(connection: bytes) -> None:
    fields = [(b"x-a", b"1"), (b"host", b"h"), (b"connection", connection), (b"x-b", b"2"), (b"x-c", b"3")]
    assert lines_of(render_request("GET", b"/", fields))[1:] == [b"host: h", b"x-c: 3"]
    assert lines_of(render_response(200, fields, framing=LENGTH_3))[1:] == [b"host: h", b"x-c: 3", b"content-length: 3"]


def test_client_cannot_take_host_or_our_fields_away() -> None:
    fields = [(b"host", b"h"), (b"connection", b"host, x-sandpost-req-id, content-length")]
    head = render_request("POST", b"/", fields, body=LENGTH_3, extra=OURS)
    assert lines_of(head)[1:] == [b"host: h", b"content-length: 3", b"x-sandpost-req-id: r1"]


def test_named_fields_are_dropped_on_demand() -> None:
    fields = [(b"host", b"h"), (b"authorization", b"Bearer k"), (b"x", b"1")]
    assert lines_of(render_request("GET", b"/", fields, drop=(b"authorization",)))[1:] == [b"host: h", b"x: 1"]
    assert lines_of(render_request("GET", b"/", fields, drop=(b"host", b"x"), host=b"s")) == [
        b"GET / HTTP/1.1",
        b"authorization: Bearer k",
        b"host: s",
    ]


def test_request_without_host_gets_one() -> None:
    assert lines_of(render_request("GET", b"/", [], host=b"sandbox"))[1:] == [b"host: sandbox"]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (NONE, []),
        (Body(Kind.LENGTH, 0), [b"content-length: 0"]),
        (Body(Kind.LENGTH, 2**63 - 1), [b"content-length: 9223372036854775807"]),
        (CHUNKED, [b"transfer-encoding: chunked"]),
    ],
)
def test_request_framing_comes_from_the_body_alone(body: Body, line: list[bytes]) -> None:
    fields = [(b"host", b"h"), (b"content-length", b"99"), (b"transfer-encoding", b"chunked")]
    assert lines_of(render_request("POST", b"/", fields, body=body))[2:] == line


def test_upgrade_is_asked_for_and_answered() -> None:
    fields = [(b"host", b"h"), (b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-key", b"k")]
    assert lines_of(render_request("GET", b"/", fields, upgrade=b"websocket"))[1:] == [
        b"host: h",
        b"sec-websocket-key: k",
        b"connection: upgrade",
        b"upgrade: websocket",
    ]
    answer = render_response(
        101, [(b"sec-websocket-accept", b"a")], framing=NONE, keep_alive=False, upgrade=b"websocket"
    )
    assert lines_of(answer) == [
        b"HTTP/1.1 101 Switching Protocols",
        b"sec-websocket-accept: a",
        b"connection: upgrade",
        b"upgrade: websocket",
    ]


@pytest.mark.parametrize(
    ("body", "minor", "framing"),
    [
        (NONE, 1, NONE),
        (LENGTH_3, 1, LENGTH_3),
        (LENGTH_3, 0, LENGTH_3),
        (CHUNKED, 1, CHUNKED),
        (UNTIL_CLOSE, 1, CHUNKED),
        (CHUNKED, 0, UNTIL_CLOSE),
        (UNTIL_CLOSE, 0, UNTIL_CLOSE),
    ],
)
def test_answer_framing_is_what_the_client_understands(body: Body, minor: int, framing: Body) -> None:
    assert answer_framing(body, minor) == framing


@pytest.mark.parametrize(
    ("status", "method", "framing", "minor", "keep_alive", "lines"),
    [
        (200, "GET", LENGTH_3, 1, True, [b"content-length: 3"]),
        (200, "GET", LENGTH_3, 1, False, [b"content-length: 3", b"connection: close"]),
        (200, "GET", LENGTH_3, 0, True, [b"content-length: 3", b"connection: keep-alive"]),
        (200, "GET", LENGTH_3, 0, False, [b"content-length: 3", b"connection: close"]),
        (200, "GET", CHUNKED, 1, True, [b"transfer-encoding: chunked"]),
        (200, "GET", UNTIL_CLOSE, 0, False, [b"connection: close"]),
        (200, "GET", NONE, 1, True, [b"content-length: 0"]),
        (200, "HEAD", NONE, 1, True, [b"content-length: 7"]),
        (304, "GET", NONE, 1, True, [b"content-length: 7"]),
        (204, "GET", NONE, 1, True, []),
        (204, "HEAD", NONE, 1, False, [b"connection: close"]),
    ],
)
def test_response_framing(
    status: int, method: str, framing: Body, minor: int, keep_alive: bool, lines: list[bytes]
) -> None:
    fields = [(b"content-length", b"007"), (b"transfer-encoding", b"chunked"), (b"connection", b"close")]
    if status == 204:
        method = "GET"
    head = render_response(status, fields, framing=framing, minor=minor, keep_alive=keep_alive, method=method)
    assert lines_of(head)[1:] == lines


def test_date_is_ours_and_status_text_is_ours() -> None:
    date = http_date(784_111_777)
    assert date == b"Sun, 06 Nov 1994 08:49:37 GMT"
    head = render_response(418, [(b"date", b"yesterday")], framing=LENGTH_3, date=date)
    assert lines_of(head)[:2] == [b"HTTP/1.1 418 I'm a Teapot", b"date: " + date]
    assert lines_of(render_response(599, [], framing=LENGTH_3))[0] == b"HTTP/1.1 599 "


@pytest.mark.parametrize(
    "poison", [b"a\r\nX: y", b"a\nX: y", b"a\rX: y", b"a\r\n\r\nGET / HTTP/1.1", b"\r\n", b"\n", b"a\x00"]
)
def test_no_value_can_begin_another_line(poison: bytes) -> None:
    with pytest.raises(ValueError, match="line end or NUL"):
        render_request("GET", b"/", [(b"host", b"h"), (b"x", poison)])
    with pytest.raises(ValueError, match="line end or NUL"):
        render_request("GET", b"/", [(b"x" + poison, b"y")])
    with pytest.raises(ValueError, match="line end or NUL"):
        render_request("GET", b"/", [], extra=[(b"x", poison)])
    with pytest.raises(ValueError, match="line end or NUL"):
        render_request("GET", b"/" + poison.replace(b" ", b""), [])
    with pytest.raises(ValueError, match="line end or NUL"):
        render_request("GET", b"/", [], upgrade=poison)
    with pytest.raises(ValueError, match="line end or NUL"):
        render_request("GET", b"/", [], host=poison)
    with pytest.raises(ValueError, match="line end or NUL"):
        render_response(200, [(b"x", poison)], framing=LENGTH_3)
    with pytest.raises(ValueError, match="line end or NUL"):
        render_response(200, [], framing=LENGTH_3, date=poison)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", b""),
        ("GET", b"t"),
        ("GET", b"/a b"),
        ("GET", b"/\xe4"),
        ("G T", b"/"),
        ("", b"/"),
        ("G\r\n", b"/"),
        ("\xc4", b"/"),
        ("A" * 21, b"/"),
    ],
)
def test_request_line_must_be_one(method: str, target: bytes) -> None:
    with pytest.raises(ValueError):
        render_request(method, target, [])


def test_impossible_framing_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot end with the connection"):
        render_request("POST", b"/", [], body=UNTIL_CLOSE)
    with pytest.raises(ValueError, match="no chunks"):
        render_response(200, [], framing=CHUNKED, minor=0)
    with pytest.raises(ValueError, match="keep it alive"):
        render_response(200, [], framing=UNTIL_CLOSE, keep_alive=True)


def test_chunk_and_constants() -> None:
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert chunk(memoryview(b"abc")) == b"3\r\nabc\r\n"
    assert LAST_CHUNK == b"0\r\n\r\n"
    assert CONTINUE == b"HTTP/1.1 100 Continue\r\n\r\n"
    with pytest.raises(ValueError):
        chunk(b"")


bodies = st.sampled_from([NONE, Body(Kind.LENGTH, 0), LENGTH_3, CHUNKED])


@given(methods, targets, plain_fields, bodies)
def test_request_comes_back_as_it_was_rendered(
    method: str, target: bytes, fields: list[tuple[bytes, bytes]], body: Body
) -> None:
    fields = [field for field in fields if not field[0].startswith(b"x-sandpost-")]
    head = request(render_request(method, target, [(b"host", b"h"), *fields], body=body, extra=OURS))
    assert (head.method, head.target, head.body, head.keep_alive) == (method, target, body, True)
    framing = {b"content-length", b"transfer-encoding"}
    assert [field for field in head.headers if field[0] not in framing] == [(b"host", b"h"), *fields, *OURS]


@given(
    st.integers(200, 599),
    plain_fields,
    st.sampled_from([*[Body(Kind.LENGTH, n) for n in (0, 3)], CHUNKED, UNTIL_CLOSE]),
    st.integers(0, 1),
    st.booleans(),
)
def test_response_comes_back_as_it_was_rendered(
    status: int, fields: list[tuple[bytes, bytes]], body: Body, minor: int, keep_alive: bool
) -> None:
    if status in {204, 304}:
        body = NONE
    framing = answer_framing(body, minor)
    keep_alive = keep_alive and framing.kind is not Kind.UNTIL_CLOSE
    head = response(render_response(status, fields, framing=framing, minor=minor, keep_alive=keep_alive))
    assert (head.status, head.body, head.keep_alive) == (status, framing, keep_alive)
    ours = {b"content-length", b"transfer-encoding", b"connection"}
    assert [field for field in head.headers if field[0] not in ours] == [
        field for field in fields if field[0] not in ORIGIN_WIDE
    ]


_text = st.lists(st.sampled_from([b"a", b":", b" ", b"\r", b"\n", b"\r\n", b"\x00", b"\xff", b"/"]), max_size=6).map(
    b"".join
)


@given(st.lists(st.tuples(_text, _text), max_size=4), st.lists(st.tuples(_text, _text), max_size=2), _text, _text)
def test_whatever_goes_in_exactly_one_head_comes_out_or_nothing(
    fields: list[tuple[bytes, bytes]], extra: list[tuple[bytes, bytes]], target: bytes, host: bytes
) -> None:
    try:
        head = render_request("GET", target, fields, extra=extra, host=host)
    except ValueError:
        return
    assert head.count(b"\r\n\r\n") == 1
    assert head.endswith(b"\r\n\r\n")
    assert re.search(rb"\x00|\r(?!\n)|(?<!\r)\n", head) is None
    assert len(lines_of(head)) <= 2 + len(fields) + len(extra)

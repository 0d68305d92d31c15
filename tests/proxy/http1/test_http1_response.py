"""Heads of responses out of a sandbox."""

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandpost.proxy.http1.body import CHUNKED, NONE, UNTIL_CLOSE, Body, Kind
from sandpost.proxy.http1.errors import BrokenResponse
from sandpost.proxy.http1.response import ResponseHead, parse_response
from support.http1_feeding import LIMIT, bytewise, cut, head_soup, outcome, places, response, responses_within


def head_of(
    *fields: bytes, line: bytes = b"HTTP/1.1 200 OK", method: str = "GET", upgrade: bytes | None = None
) -> ResponseHead:
    return response(b"\r\n".join([line, *fields]) + b"\r\n\r\n", method, upgrade)


def test_node_head_is_read() -> None:
    data = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n"
        b"Date: Mon, 23 Nov 2026 23:00:00 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n"
    )
    head = response(data + b'"Hello, world!"')
    assert (head.status, head.minor, head.size, head.body) == (200, 1, len(data), Body(Kind.LENGTH, 15))
    assert (head.keep_alive, head.upgrade, head.interim) == (True, None, False)
    assert head.get(b"content-type") == b"application/json"


@pytest.mark.parametrize(
    ("line", "method", "fields", "body", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK", "GET", [b"Content-Length: 0"], Body(Kind.LENGTH, 0), True),
        (b"HTTP/1.1 200 ", "GET", [b"Transfer-Encoding: chunked"], CHUNKED, True),
        (b"HTTP/1.1 299 a\tb \xff", "GET", [b"Transfer-Encoding: Chunked", b"Connection: close"], CHUNKED, False),
        (b"HTTP/1.1 200 OK", "GET", [], UNTIL_CLOSE, False),
        (b"HTTP/1.1 200 OK", "GET", [b"Connection: keep-alive"], UNTIL_CLOSE, False),
        (b"HTTP/1.0 200 OK", "GET", [b"Content-Length: 3"], Body(Kind.LENGTH, 3), False),
        (b"HTTP/1.0 200 OK", "GET", [b"Content-Length: 3", b"Connection: keep-alive"], Body(Kind.LENGTH, 3), True),
        (b"HTTP/1.1 200 OK", "HEAD", [b"Content-Length: 3"], NONE, True),
        (b"HTTP/1.1 200 OK", "HEAD", [b"Transfer-Encoding: chunked"], NONE, True),
        (b"HTTP/1.1 200 OK", "HEAD", [], NONE, True),
        (b"HTTP/1.1 200 OK", "head", [b"Content-Length: 3"], Body(Kind.LENGTH, 3), True),
        (b"HTTP/1.1 304 Not Modified", "GET", [b"Content-Length: 3"], NONE, True),
        (b"HTTP/1.1 204 No Content", "GET", [], NONE, True),
        (b"HTTP/1.1 204 No Content", "GET", [b"Content-Length: 0"], NONE, True),
        (b"HTTP/1.1 204 No Content", "GET", [b"Content-Length: 3"], NONE, False),
        (b"HTTP/1.1 204 No Content", "GET", [b"Transfer-Encoding: chunked"], NONE, False),
        (b"HTTP/1.1 205 Reset Content", "GET", [b"Content-Length: 0"], Body(Kind.LENGTH, 0), True),
        (b"HTTP/1.1 599 X", "GET", [b"Content-Length: 3"], Body(Kind.LENGTH, 3), True),
    ],
)
def test_framing(line: bytes, method: str, fields: list[bytes], body: Body, keep_alive: bool) -> None:
    head = head_of(*fields, line=line, method=method)
    assert (head.body, head.keep_alive) == (body, keep_alive)


@pytest.mark.parametrize("status", [100, 102, 103])
def test_interim_heads_have_no_body_and_say_so(status: int) -> None:
    head = head_of(b"Link: x", line=b"HTTP/1.1 %d X" % status)
    assert head.interim
    assert head.body == NONE


def test_switching_protocols_answers_the_upgrade_asked_for() -> None:
    fields = [b"Connection: Upgrade", b"Upgrade: WebSocket", b"Sec-WebSocket-Accept: x"]
    head = head_of(*fields, line=b"HTTP/1.1 101 X", upgrade=b"websocket")
    assert (head.upgrade, head.interim, head.keep_alive, head.body) == (b"websocket", False, False, NONE)


@pytest.mark.parametrize(
    "fields",
    [
        [b"Connection: Upgrade", b"Upgrade: other"],
        [b"Connection: Upgrade"],
        [b"Upgrade: websocket"],
        [b"Connection: Upgrade", b"Upgrade: websocket", b"Upgrade: websocket"],
        [b"Connection: Upgrade", b"Upgrade: websocket", b"Content-Length: 3"],
    ],
)
def test_switching_protocols_otherwise_is_refused(fields: list[bytes]) -> None:
    with pytest.raises(BrokenResponse):
        head_of(*fields, line=b"HTTP/1.1 101 X", upgrade=b"websocket")


def test_ordinary_answer_to_an_upgrade_is_an_answer() -> None:
    head = head_of(b"Content-Length: 3", b"Upgrade: websocket", line=b"HTTP/1.1 426 X", upgrade=b"websocket")
    assert (head.upgrade, head.body) == (None, Body(Kind.LENGTH, 3))


def test_head_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not() -> None:
    data = b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n"
    assert parse_response(data + b"x" * 99, len(data), "GET") is not None
    with pytest.raises(BrokenResponse, match=f"longer than {len(data) - 1} bytes"):
        parse_response(data, len(data) - 1, "GET")


def test_broken_response_is_a_502_that_names_the_rule() -> None:
    with pytest.raises(BrokenResponse) as broken:
        head_of(b"Content-Length: -1")
    body = broken.value.to_dict("r1")
    assert (body["code"], body["fault"], body["retryable"]) == (502, "code", False)
    assert broken.value.rule == "Content-Length is not a plain number"
    assert broken.value.rule in body["message"]


@given(
    head_soup,
    places,
    st.sampled_from([40, LIMIT]),
    st.sampled_from(["GET", "HEAD"]),
    st.sampled_from([None, b"websocket"]),
)
@settings(max_examples=300)
def test_splitting_changes_nothing(
    data: bytes, cuts: list[int], limit: int, method: str, upgrade: bytes | None
) -> None:
    parse = responses_within(limit, method, upgrade)
    whole = outcome(parse, [data])
    assert outcome(parse, bytewise(data)) == whole
    assert outcome(parse, cut(data, cuts)) == whole
    assert outcome(parse, cut(data, cuts), tell_seen=False) == whole


@given(
    st.sampled_from([b"200", b"204", b"304", b"404", b"500"]),
    head_soup,
    st.sampled_from(["GET", "HEAD"]),
)
@settings(max_examples=300)
def test_what_is_accepted_h11_reads_alike(status: bytes, soup: bytes, method: str) -> None:
    data = b"HTTP/1.1 " + status + b" X\r\n" + soup + b"\r\n\r\n"
    try:
        head = parse_response(data, LIMIT, method)
    except BrokenResponse:
        return
    assert head is not None
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data[: head.size])
    event = connection.next_event()
    assert isinstance(event, h11.Response)
    assert event.status_code == head.status
    assert list(event.headers) == [
        (name, value.lower() if name == b"transfer-encoding" else value) for name, value in head.headers
    ]
    ended = type(connection.next_event()) is h11.EndOfMessage
    assert ended == head.body.empty

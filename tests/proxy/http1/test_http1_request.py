"""Heads of requests that are good, and that splitting never changes what is read."""

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandpost.model.errors import HeadTooLarge, MalformedRequest
from sandpost.proxy.http1.body import CHUNKED, NONE, Body, Kind
from sandpost.proxy.http1.request import RequestHead, _fields, parse_request
from support.http1_feeding import (
    LIMIT,
    bytewise,
    cut,
    head_soup,
    methods,
    outcome,
    places,
    plain_fields,
    request,
    requests_within,
    targets,
)


def head_of(*fields: bytes, line: bytes = b"GET /t HTTP/1.1", host: bytes = b"Host: a") -> RequestHead:
    return request(b"\r\n".join([line, host, *fields]) + b"\r\n\r\n")


def test_curl_head_is_read() -> None:
    data = (
        b"POST /acme/x?a=b?c HTTP/1.1\r\nHost: 127.0.0.1:8721\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
        b"Content-Length: 12\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n"
    )
    head = request(data + b"return 1;...")
    assert (head.method, head.target, head.path, head.query) == ("POST", b"/acme/x?a=b?c", b"/acme/x", b"a=b?c")
    assert head.headers[:2] == [(b"host", b"127.0.0.1:8721"), (b"user-agent", b"curl/7.88.1")]
    assert (head.minor, head.size, head.body) == (1, len(data), Body(Kind.LENGTH, 12))
    assert (head.keep_alive, head.expect_continue, head.upgrade) == (True, False, None)
    assert head.get(b"accept") == b"*/*"
    assert head.get(b"cookie") is None


def test_values_lose_surrounding_whitespace_only() -> None:
    head = head_of(b"X:\t a \t b \t", b"Y:", b"Z:   ", b"W:w", b"Obs: \xe4\xff")
    assert head.headers[1:] == [(b"x", b"a \t b"), (b"y", b""), (b"z", b""), (b"w", b"w"), (b"obs", b"\xe4\xff")]


def test_same_field_may_come_twice_and_keeps_its_order() -> None:
    assert head_of(b"X: 1", b"Y: 2", b"x: 3").headers[1:] == [(b"x", b"1"), (b"y", b"2"), (b"x", b"3")]


@pytest.mark.parametrize("lines", [b"", b"\r\n", b"\r\n\r\n"])
def test_up_to_two_empty_lines_come_first(lines: bytes) -> None:
    data = lines + b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n"
    assert request(data + b"rest").size == len(data)


@pytest.mark.parametrize(
    "host", [b"a", b"A.b-c.example:8721", b"127.0.0.1", b"[::1]:80", b"[2001:db8::1]", b"under_score", b"a:0"]
)
def test_host_is_accepted(host: bytes) -> None:
    assert head_of(host=b"Host: " + host).get(b"host") == host


@pytest.mark.parametrize(
    ("line", "target", "path", "query"),
    [
        (b"GET http://a HTTP/1.1", b"/", b"/", b""),
        (b"GET http://A/t?q HTTP/1.1", b"/t?q", b"/t", b"q"),
        (b"GET HTTPS://a?q HTTP/1.1", b"/?q", b"/", b"q"),
        (b"OPTIONS http://a HTTP/1.1", b"*", b"*", b""),
        (b"OPTIONS * HTTP/1.1", b"*", b"*", b""),
        (b'GET //t/../%2e%00\\;|{}"<>^` HTTP/1.1', b'//t/../%2e%00\\;|{}"<>^`', b'//t/../%2e%00\\;|{}"<>^`', b""),
        (b"GET /? HTTP/1.1", b"/?", b"/", b""),
        (b"GET /http://b/ HTTP/1.1", b"/http://b/", b"/http://b/", b""),
    ],
)  # fmt: skip
def test_target_forms(line: bytes, target: bytes, path: bytes, query: bytes) -> None:
    head = head_of(line=line)
    assert (head.target, head.path, head.query) == (target, path, query)


def test_absolute_form_without_host_in_http_1_0_supplies_it() -> None:
    head = request(b"GET http://b:1/t HTTP/1.0\r\n\r\n")
    assert head.headers == [(b"host", b"b:1")]


@pytest.mark.parametrize("method", ["GET", "get", "M-SEARCH", "PROPFIND", "!#$%&'*+-.^_`|~", "A" * 20])
def test_methods_are_tokens_and_keep_their_case(method: str) -> None:
    assert head_of(line=method.encode() + b" /t HTTP/1.1").method == method


@pytest.mark.parametrize(
    ("line", "fields", "keep_alive"),
    [
        (b"GET /t HTTP/1.1", [], True),
        (b"GET /t HTTP/1.1", [b"Connection: close"], False),
        (b"GET /t HTTP/1.1", [b"Connection: x, CLOSE ,"], False),
        (b"GET /t HTTP/1.1", [b"Connection: x", b"Connection: Close"], False),
        (b"GET /t HTTP/1.1", [b"Connection: closed"], True),
        (b"GET /t HTTP/1.0", [], False),
        (b"GET /t HTTP/1.0", [b"Connection: Keep-Alive"], True),
        (b"GET /t HTTP/1.0", [b"Connection: keep-alive, close"], False),
    ],
)
def test_keep_alive(line: bytes, fields: list[bytes], keep_alive: bool) -> None:
    assert head_of(*fields, line=line).keep_alive is keep_alive


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ([], NONE),
        ([b"Content-Length: 0"], Body(Kind.LENGTH, 0)),
        ([b"Content-Length: 007"], Body(Kind.LENGTH, 7)),
        ([b"Content-Length:9223372036854775807\t"], Body(Kind.LENGTH, 2**63 - 1)),
        ([b"Transfer-Encoding: chunked"], CHUNKED),
        ([b"transfer-encoding:\tChunked "], CHUNKED),
    ],
)
def test_framing(fields: list[bytes], body: Body) -> None:
    assert head_of(*fields).body == body


@pytest.mark.parametrize(
    ("line", "fields", "expects"),
    [
        (b"POST /t HTTP/1.1", [b"Expect: 100-Continue", b"Content-Length: 3"], True),
        (b"POST /t HTTP/1.1", [b"Expect: 100-continue", b"Transfer-Encoding: chunked"], True),
        (b"POST /t HTTP/1.1", [b"Expect: 100-continue", b"Content-Length: 0"], False),
        (b"POST /t HTTP/1.1", [b"Expect: 100-continue"], False),
        (b"POST /t HTTP/1.0", [b"Expect: 100-continue", b"Content-Length: 3"], False),
    ],
)
def test_expect_counts_where_a_body_comes(line: bytes, fields: list[bytes], expects: bool) -> None:
    assert head_of(*fields, line=line).expect_continue is expects


@pytest.mark.parametrize(
    ("line", "fields", "upgrade"),
    [
        (b"GET /t HTTP/1.1", [b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket"], b"websocket"),
        (b"GET /t HTTP/1.1", [b"Connection: upgrade", b"Upgrade: foo/2"], b"foo/2"),
        (b"GET /t HTTP/1.1", [b"Upgrade: websocket"], None),
        (b"GET /t HTTP/1.1", [b"Connection: upgrade"], None),
        (b"GET /t HTTP/1.1", [b"Connection: upgrade, HTTP2-Settings", b"Upgrade: h2c"], None),
        (b"GET /t HTTP/1.1", [b"Connection: upgrade", b"Upgrade: websocket, foo"], None),
        (b"GET /t HTTP/1.1", [b"Connection: upgrade", b"Upgrade: websocket", b"Upgrade: foo"], None),
        (b"GET /t HTTP/1.1", [b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 3"], None),
        (b"GET /t HTTP/1.1", [b"Connection: upgrade", b"Upgrade: websocket", b"Transfer-Encoding: chunked"], None),
        (b"GET /t HTTP/1.0", [b"Connection: upgrade", b"Upgrade: websocket"], None),
    ],
)
def test_upgrade_is_honoured_for_one_protocol_without_a_body(
    line: bytes, fields: list[bytes], upgrade: bytes | None
) -> None:
    assert head_of(*fields, line=line).upgrade == upgrade


def test_hundred_fields_are_accepted() -> None:
    assert len(head_of(*[b"X: y"] * 99).headers) == 100


def test_head_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not() -> None:
    data = b"GET /t HTTP/1.1\r\nHost: a\r\n\r\n"
    assert parse_request(data + b"x" * 99, len(data)) is not None
    with pytest.raises(HeadTooLarge) as refusal:
        parse_request(data, len(data) - 1)
    assert str(len(data) - 1) in refusal.value.message
    assert refusal.value.status == 431
    with pytest.raises(HeadTooLarge):
        parse_request(data[:-1], len(data) - 1)


def test_empty_lines_before_the_request_count_towards_the_limit() -> None:
    data = b"\r\n\r\nGET /t HTTP/1.1\r\nHost: a\r\n\r\n"
    assert parse_request(data, len(data)) is not None
    with pytest.raises(HeadTooLarge):
        parse_request(data, len(data) - 1)


def test_control_character_is_told_before_the_head_is_complete() -> None:
    with pytest.raises(MalformedRequest, match="LF alone"):
        parse_request(b"GET /t HTTP/1.1\n", LIMIT)


def test_remembered_lines_stay_bounded_and_keep_no_credentials() -> None:
    for n in range(3000):
        head_of(
            b"X-%d: y" % n,
            b"Authorization: Bearer secret-%d" % n,
            b"Cookie: secret-%d" % n,
            b"Y: " + b"y" * 200 + b"%d" % n,
        )
    known = _fields._known
    assert 0 < len(known) <= _fields.MAX_KNOWN
    assert not any(b"secret" in line or len(line) > _fields.MAX_LINE for line in known)


def test_remembered_line_is_the_same_for_another_head() -> None:
    first = head_of(b"X-Same:  v ")
    assert head_of(b"X-Same:  v ").headers == first.headers
    with pytest.raises(MalformedRequest):
        head_of(b"X-Same : v ")


@given(head_soup, places, st.sampled_from([40, 120, LIMIT]))
@settings(max_examples=300)
def test_splitting_changes_nothing(data: bytes, cuts: list[int], limit: int) -> None:
    parse = requests_within(limit)
    whole = outcome(parse, [data])
    assert outcome(parse, bytewise(data)) == whole
    assert outcome(parse, cut(data, cuts)) == whole
    assert outcome(parse, cut(data, cuts), tell_seen=False) == whole


@given(
    methods,
    targets,
    plain_fields,
    st.sampled_from([b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"]),
    places,
)
def test_whatever_is_well_formed_is_read_as_written(
    method: str, target: bytes, fields: list[tuple[bytes, bytes]], framing: bytes, cuts: list[int]
) -> None:
    lines = b"".join(name + b": " + value + b" \r\n" for name, value in fields)
    data = method.encode() + b" " + target + b" HTTP/1.1\r\nHost: a\r\n" + lines + framing + b"\r\n"
    head = outcome(requests_within(LIMIT), cut(data, cuts))
    assert isinstance(head, RequestHead), head
    assert (head.method, head.target) == (method, target)
    assert head.headers[1 : 1 + len(fields)] == fields
    assert head.path + (b"?" + head.query if b"?" in target else b"") == target
    assert head.size == len(data)


@given(head_soup | st.builds(lambda soup: b"POST /t HTTP/1.1\r\nHost: a\r\n" + soup + b"\r\n\r\n", head_soup))
@settings(max_examples=400)
def test_what_is_accepted_h11_reads_alike(data: bytes) -> None:
    try:
        head = parse_request(data, LIMIT)
    except MalformedRequest:
        return
    if head is None or data.startswith(b"\r\n"):  # h11 refuses empty lines at the very beginning
        return
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data[: head.size])
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert event.method.decode() == head.method
    assert event.http_version == b"1.%d" % head.minor
    if event.target.startswith((b"/", b"*")):
        assert event.target == head.target
        assert list(event.headers) == [
            (name, value.lower() if name == b"transfer-encoding" else value) for name, value in head.headers
        ]
    behind = connection.next_event()
    assert (type(behind) is h11.EndOfMessage) == head.body.empty

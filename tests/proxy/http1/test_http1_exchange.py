"""When a client's connection goes on, drains, or ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.model.errors import MalformedRequest
from sandpost.proxy.http1.body import CHUNKED, NONE, UNTIL_CLOSE, Body, BodyReader, Kind
from sandpost.proxy.http1.errors import BrokenResponse
from sandpost.proxy.http1.exchange import MAX_DRAIN, After, Exchange, reusable
from support.http1_feeding import request, response

LENGTH_3 = Body(Kind.LENGTH, 3)


def exchange(*fields: bytes, line: bytes = b"POST /t HTTP/1.1") -> Exchange:
    return Exchange(request(b"\r\n".join([line, b"Host: a", *fields]) + b"\r\n\r\n"))


def test_next_follows_when_all_was_read() -> None:
    it = exchange(b"Content-Length: 3")
    done = [it.request_done]
    assert b"".join(it.receive(b"abcGET /")) == b"abc"
    assert [*done, it.request_done] == [False, True]
    assert it.answer(LENGTH_3) == LENGTH_3
    assert it.keep_alive
    assert it.answered() == After.NEXT
    assert it.excess == b"GET /"


@pytest.mark.parametrize(
    ("line", "fields", "body", "framing", "keep_alive"),
    [
        (b"GET /t HTTP/1.1", [], NONE, NONE, True),
        (b"GET /t HTTP/1.1", [b"Connection: close"], LENGTH_3, LENGTH_3, False),
        (b"GET /t HTTP/1.1", [], UNTIL_CLOSE, CHUNKED, True),
        (b"GET /t HTTP/1.0", [], LENGTH_3, LENGTH_3, False),
        (b"GET /t HTTP/1.0", [b"Connection: keep-alive"], LENGTH_3, LENGTH_3, True),
        (b"GET /t HTTP/1.0", [b"Connection: keep-alive"], CHUNKED, UNTIL_CLOSE, False),
    ],
)
def test_framing_and_keep_alive_suit_the_client(
    line: bytes, fields: list[bytes], body: Body, framing: Body, keep_alive: bool
) -> None:
    it = exchange(*fields, line=line)
    assert it.answer(body) == framing
    assert it.keep_alive is keep_alive
    assert it.answered() == (After.NEXT if keep_alive else After.CLOSE)


def test_worker_that_stops_ends_the_connection() -> None:
    it = exchange(line=b"GET /t HTTP/1.1")
    it.ending = True
    it.answer(LENGTH_3)
    assert not it.keep_alive
    assert it.answered() == After.CLOSE


def test_continue_is_due_once_and_only_before_body_and_answer() -> None:
    expecting = [b"Expect: 100-continue", b"Content-Length: 3"]
    it = exchange(*expecting)
    assert it.take_continue()
    assert not it.take_continue()
    it = exchange(*expecting)
    it.receive(b"a")
    assert not it.take_continue()
    it = exchange(*expecting)
    it.answer(LENGTH_3)
    assert not it.take_continue()
    assert not exchange(b"Content-Length: 3").take_continue()


def test_answer_before_the_continue_ends_the_connection() -> None:
    it = exchange(b"Expect: 100-continue", b"Content-Length: 3")
    it.answer(LENGTH_3)
    assert not it.keep_alive
    assert it.answered() == After.CLOSE


def test_short_rest_of_a_body_is_drained() -> None:
    it = exchange(b"Content-Length: 10")
    it.receive(b"abc")
    it.answer(LENGTH_3)
    assert it.keep_alive
    assert it.answered() == After.DRAIN
    assert it.drain(b"defg") == After.DRAIN
    assert it.drain(b"hijGET") == After.NEXT
    assert it.excess == b"GET"


def test_long_rest_of_a_body_ends_the_connection() -> None:
    it = exchange(b"Content-Length: %d" % (MAX_DRAIN + 1))
    it.answer(LENGTH_3)
    assert not it.keep_alive
    it = exchange(b"Content-Length: %d" % (MAX_DRAIN + 1))
    it.receive(b"x")
    it.answer(LENGTH_3)
    assert it.keep_alive


def test_chunked_rest_is_drained_up_to_the_bound() -> None:
    it = exchange(b"Transfer-Encoding: chunked")
    it.receive(b"5\r\nhello\r\n")
    it.answer(LENGTH_3)
    assert it.keep_alive
    assert it.answered() == After.DRAIN
    assert it.drain(b"%x\r\n%b\r\n" % (MAX_DRAIN, b"x" * MAX_DRAIN)) == After.DRAIN
    assert it.drain(b"1\r\nx\r\n") == After.CLOSE


def test_malformed_rest_is_refused() -> None:
    it = exchange(b"Transfer-Encoding: chunked")
    it.answer(LENGTH_3)
    it.answered()
    with pytest.raises(MalformedRequest):
        it.drain(b"zz\r\n")


def test_half_closed_client_is_served_and_then_closed() -> None:
    it = exchange(b"Content-Length: 3")
    it.receive(b"abc")
    it.client_ended()
    it.answer(LENGTH_3)
    assert it.answered() == After.CLOSE
    it = exchange(b"Content-Length: 3")
    it.receive(b"ab")
    with pytest.raises(MalformedRequest, match="1 bytes before"):
        it.client_ended()


def test_calls_out_of_order_are_faults_of_ours() -> None:
    it = exchange(line=b"GET /t HTTP/1.1")
    with pytest.raises(RuntimeError):
        it.answered()
    with pytest.raises(RuntimeError):
        it.drain(b"")
    it.answer(NONE)
    with pytest.raises(RuntimeError):
        it.answer(NONE)
    it.answered()
    with pytest.raises(RuntimeError):
        it.answered()


@given(st.lists(st.tuples(st.binary(max_size=20), st.booleans()), min_size=1, max_size=5), st.integers(1, 50))
def test_pipelined_requests_come_out_in_order_whole(messages: list[tuple[bytes, bool]], step: int) -> None:
    wire = b""
    for n, (content, chunked) in enumerate(messages):
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(content)
        body = (b"%x\r\n%b\r\n" % (len(content), content) if content else b"") + b"0\r\n\r\n" if chunked else content
        wire += b"POST /%d HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n%b" % (n, framing, body)
    seen: list[tuple[bytes, bytes]] = []
    while wire:
        head = request(wire)
        it = Exchange(head)
        content = b""
        rest = wire[head.size :]
        while not it.request_done:
            content += b"".join(it.receive(rest[:step]))
            rest = rest[step:]
        it.answer(LENGTH_3)
        assert it.answered() == After.NEXT
        seen.append((head.target, content))
        wire = it.excess + rest
    assert seen == [(b"/%d" % n, content) for n, (content, _) in enumerate(messages)]


@pytest.mark.parametrize(
    ("fields", "data", "sent", "again"),
    [
        (b"Content-Length: 3\r\n", b"abc", True, True),
        (b"Content-Length: 3\r\n", b"abc", False, False),
        (b"Content-Length: 3\r\n", b"abcd", True, False),
        (b"Content-Length: 3\r\n", b"ab", True, False),
        (b"Content-Length: 3\r\nConnection: close\r\n", b"abc", True, False),
        (b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", True, True),
        (b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\nHTTP/1.1 200 OK\r\n", True, False),
        (b"", b"abc", True, False),
    ],
)
def test_sandbox_connection_is_used_again_only_when_nothing_is_left_over(
    fields: bytes, data: bytes, sent: bool, again: bool
) -> None:
    head = response(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n")
    reader = BodyReader(head.body, BrokenResponse)
    reader.feed(data)
    if head.body is UNTIL_CLOSE:
        reader.eof()
    assert reusable(head, reader, request_sent=sent) is again

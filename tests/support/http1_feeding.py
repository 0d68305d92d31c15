"""Feeds parsers in pieces, as a network does, and says what came out in a form that can be compared."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from hypothesis import strategies as st

from sandpost.model.errors import SandpostError
from sandpost.proxy.http1.body import Body, BodyReader
from sandpost.proxy.http1.errors import malformed
from sandpost.proxy.http1.request import RequestHead, parse_request
from sandpost.proxy.http1.response import ResponseHead, parse_response

LIMIT = 8192
Parse = Callable[..., RequestHead | ResponseHead | None]
Outcome = RequestHead | ResponseHead | tuple[str, str] | None


def request(data: bytes) -> RequestHead:
    """Parse a head that is expected to be whole and good."""
    head = parse_request(data, LIMIT)
    assert head is not None
    return head


def response(data: bytes, method: str = "GET", upgrade: bytes | None = None) -> ResponseHead:
    """Parse a head that is expected to be whole and good."""
    head = parse_response(data, LIMIT, method, upgrade)
    assert head is not None
    return head


def requests_within(limit: int) -> Parse:
    return lambda buffer, seen: parse_request(buffer, limit, seen)


def responses_within(limit: int, method: str = "GET", upgrade: bytes | None = None) -> Parse:
    return partial(_response, limit, method, upgrade)


def _response(limit: int, method: str, upgrade: bytes | None, buffer: Any, seen: int) -> ResponseHead | None:
    return parse_response(buffer, limit, method, upgrade, seen)


def outcome(parse: Parse, pieces: Iterable[bytes], *, tell_seen: bool = True) -> Outcome:
    """Feed `pieces` until the parser has an answer: a head, the kind and text of an error, or None."""
    buffer = bytearray()
    seen = 0
    for piece in pieces:
        buffer += piece
        try:
            head = parse(buffer, seen if tell_seen else 0)
        except SandpostError as error:
            return type(error).__name__, error.message
        if head is not None:
            return head
        seen = len(buffer)
    return None


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Cut `data` at `places`, whatever numbers they are."""
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


def body_outcome(body: Body, pieces: Iterable[bytes], *, ends: bool = False) -> tuple[bytes, bool, bytes] | str:
    """Feed a body; returns content, whether it finished, and excess; or the broken rule."""
    reader = BodyReader(body)
    content = b""
    try:
        for piece in pieces:
            content += b"".join(reader.feed(piece))
        if ends:
            reader.eof()
    except type(malformed("")) as error:
        return error.message
    assert reader.received == len(content)
    return content, reader.finished, reader.excess


places = st.lists(st.integers(0, 100_000), max_size=8)
"""Where to cut a stream."""

_SCRAPS = [
    b"\r\n", b"\r\n", b"\r\n", b"\r\n\r\n", b"\r", b"\n", b" ", b"\t", b":", b"\x00", b"\x0b", b"\x7f", b"\xff", b"\x16", b"a", b"0",
    b"GET ", b"POST ", b"HEAD ", b"OPTIONS * HTTP/1.1\r\n", b"/t", b"/t?a=b", b"#", b"http://a/t", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n",
    b"GET /t HTTP/1.1\r\n", b"POST /t HTTP/1.1\r\nHost: a\r\n", b"GET http://a/t HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n",
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 \r\n", b"HTTP/1.1 101 X\r\n", b"HTTP/1.1 100 X\r\n", b"HTTP/1.1 304 X\r\n",
    b"Host: a\r\n", b"Host: b\r\n", b"host:a\r\n", b"X: y\r\n", b"X:\r\n", b"X: y z\t\r\n", b"X : y\r\n", b" folded\r\n", b"X: \xe4\r\n",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Content-Length: 3, 3\r\n", b"Content-Length: +3\r\n",
    b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:CHUNKED\r\n", b"Transfer-Encoding: x\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive, X\r\n", b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n", b"Expect: 100-continue\r\n",
]  # fmt: skip
head_soup = st.lists(st.sampled_from(_SCRAPS) | st.binary(max_size=2), max_size=14).map(b"".join)
"""Bytes that are sometimes a head, often nearly one."""

_token = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=20).map(str.encode)
_value = st.lists(
    st.sampled_from([b"a", b"Z", b"~", b" ", b"\t", b",", b"\x80", b"\xff", b'"', b":"]), max_size=12
).map(lambda parts: b"".join(parts).strip(b" \t"))
_FRAMING = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"expect",
        b"upgrade",
        b"keep-alive",
        b"te",
        b"trailer",
    }
)
plain_fields = st.lists(
    st.tuples(_token.map(bytes.lower), _value).filter(lambda field: field[0] not in _FRAMING), max_size=6
)
"""Fields that mean nothing to framing, as a parser returns them."""
methods = _token.map(bytes.decode).filter(lambda method: method != "CONNECT")
targets = st.text('/abz09?&=%.-_~+\\|{}"<>^`@:;,', max_size=30).map(lambda text: b"/" + text.encode())

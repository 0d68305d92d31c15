"""What the gate reads of a connection: ClientHello and HTTP heads, whole and in pieces, ours and anybody's."""

import contextlib
import random
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from egress.hellos import extension, field, handshake, hello, records, sni
from sandpost.egress.body import BrokenBody, Chunked, Length
from sandpost.egress.head import BadHead, read_head
from sandpost.egress.hello import BadHello, read_hello

CORPUS = Path(__file__).with_name("corpus")
GOOD = hello("WWW.example.com")
HEAD = b"POST /a?b HTTP/1.1\r\nHost: WWW.example.com:8080\r\nConnection: keep-alive, x\r\nAccept: */*\r\n\r\n"


def test_a_name_is_read_in_lower_case() -> None:
    assert read_hello(GOOD) == "www.example.com"


@given(st.integers(0, len(GOOD) - 1))
def test_a_part_of_a_hello_asks_for_more(length: int) -> None:
    assert read_hello(GOOD[:length]) is None


@given(st.integers(80, 1500))
def test_a_hello_may_be_split_over_records(size: int) -> None:
    message = handshake(sni(b"www.example.com"), extension(51, b"k" * 1216))
    split = records(message, size)
    assert read_hello(split + b"\x14\x03\x03\x00\x01\x01") == "www.example.com"
    assert read_hello(split[:-1]) is None


def test_hellos_that_are_not_let_pass() -> None:
    name = sni(b"www.example.com")
    cases = {
        "hidden_name": [hello("www.example.com", ech=True), records(handshake(name, extension(0xFFCE, b"x")))],
        "no_name": [hello(None), records(handshake())],
        "malformed_hello": [
            records(handshake(name, name)),
            records(handshake(sni(b"www.example.com", kind=1))),
            records(handshake(extension(0, field(2, b"\0" + field(2, b"a.example") + b"\0" + field(2, b"b.example"))))),
            records(handshake(extension(0, b""))),
            *(records(handshake(sni(bad))) for bad in (b"", b"a b", b"a\0.example", b"a.example.", b".a", b"a" * 254, "ü".encode())),
            records(handshake(name, tail=b"x")),
            records(handshake(name) + b"\x01"),
            records(handshake(name), 2),
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x40\x01",
            b"\x16\x02\x01\x00\x05",
            b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00",
            b"\x16\x03\x01\x00\x05\x01\x01\x00\x00\x00",
        ],
    }  # fmt: skip
    for kind, hellos in cases.items():
        for wire in hellos:
            with pytest.raises(BadHello) as raised:
                read_hello(wire)
            assert raised.value.kind == kind, wire


def corpus(name: str) -> list[bytes]:
    return [bytes.fromhex(line) for line in (CORPUS / name).read_text().split("\n") if line and line[0] != "#"]


@pytest.mark.parametrize("wire", corpus("hellos.hex"))
def test_hellos_of_real_clients(wire: bytes) -> None:
    assert read_hello(wire) == "api.example.com"


@given(st.binary(max_size=400))
@example(GOOD)
def test_any_bytes_are_a_hello_or_are_refused_and_more_of_them_change_no_verdict(data: bytes) -> None:
    for wire in (data, b"\x16\x03\x01" + data, GOOD[:60] + data):
        try:
            found = read_hello(wire)
        except BadHello as error:
            # What was wrong stays wrong.
            with pytest.raises(BadHello):
                read_hello(wire + b"\0")
            assert error.kind  # noqa: PT017 - each of many
        else:
            assert found is None or found == found.lower()


@given(st.randoms(use_true_random=False), st.integers(1, 8))
def test_a_hello_with_changed_bytes_breaks_nothing(chance: random.Random, count: int) -> None:
    wire = bytearray(GOOD)
    for _ in range(count):
        wire[chance.randrange(len(wire))] = chance.randrange(256)
    with contextlib.suppress(BadHello):
        read_hello(bytes(wire))


def test_a_head_becomes_the_only_one_of_its_connection() -> None:
    head = read_head(HEAD + b"rest")
    assert head is not None
    assert (head.host, head.port, head.size) == ("www.example.com", 8080, len(HEAD))
    assert head.wire == b"POST /a?b HTTP/1.1\r\nHost: WWW.example.com:8080\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    assert head.body.ended


@given(st.integers(0, len(HEAD) - 1))
def test_a_part_of_a_head_asks_for_more(length: int) -> None:
    assert read_head(HEAD[:length]) is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"Host: WWW.example.com:8080\r\n", b"", "no Host"),
        (b"Accept: */*", b"Host: other.example", "more than one Host"),
        (b"Accept: */*", b"Accept : */*", "header field"),
        (b"Accept: */*", b" folded: x", "header field"),
        (b"Accept: */*", b"Accept: a\nb", "0x0a"),
        (b"Accept: */*", b"Accept: a\0b", "0x00"),
        (b"WWW.example.com:8080", b"www.example.com@evil.example", "no domain"),
        (b"WWW.example.com:8080", b"[::1]", "no domain"),
        (b"POST /a?b HTTP/1.1", b"CONNECT a.example:80 HTTP/1.1", "tunnel"),
        (b"POST /a?b HTTP/1.1", b"PRI * HTTP/2.0", "first line"),
        (b"POST /a?b", b"POST  /a?b", "first line"),
        (b"/a?b", b"http://other.example/", "another host"),
        (b"/a?b", b"https://www.example.com:8080/", "does not begin"),
        (b"Accept: */*", b"Content-Length: 1\r\nContent-Length: 1", "more than one Content-Length"),
        (b"Accept: */*", b"Content-Length: +1", "no plain number"),
        (b"Accept: */*", b"Transfer-Encoding: gzip, chunked", "two ways"),
        (b"Accept: */*", b"Transfer-Encoding: chunked\r\nContent-Length: 1", "two ways"),
        (b"Accept: */*", b"x: " + b"y" * 16384, "longer than"),
        (b"Accept: */*", b"x: y\r\n" * 101 + b"z: 1", "more than 100"),
    ],
)
def test_heads_that_are_not_let_pass(old: bytes, new: bytes, said: str) -> None:
    with pytest.raises(BadHead, match=said):
        read_head(HEAD.replace(old, new))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_head_or_are_refused(data: bytes) -> None:
    for wire in (data, HEAD[:30] + data, HEAD[:-2] + data + b"\r\n\r\n"):
        try:
            head = read_head(wire)
        except BadHead:
            continue
        if head is not None:
            # What goes on reads the same, and is the last of its connection.
            again = read_head(head.wire)
            assert again is not None
            assert again.host == head.host
            assert head.wire.count(b"\r\nConnection: close\r\n") == 1


@given(st.binary(max_size=200), st.lists(st.integers(1, 40), max_size=10), st.integers(1, 30))
def test_a_body_ends_where_its_framing_says_however_it_is_split(content: bytes, cuts: list[int], size: int) -> None:
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    framed = b"".join(b"%x;e=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nT: v\r\n\r\n"
    for body, wire in ((Length(len(content)), content), (Chunked(), framed)):
        after = wire + b"GET / HTTP/1.1\r\n\r\n"
        taken, rest = 0, memoryview(after)
        for cut in [*cuts, len(after)]:
            if body.ended:
                break
            taken += body.feed(rest[:cut])
            rest = memoryview(after)[taken:]
        assert body.ended
        assert taken == len(wire)


@pytest.mark.parametrize(
    "wire",
    [b"5\nhello", b"-1\r\n", b"0x5\r\n", b"3\r\nabcd\r\n", b"3\r\nabc\n\n", b"\r\n", b"0\r\nbad line\r\n",
     b"1;" + b"x" * 5000 + b"\r\n", b"0\r\n" + b"a: b\r\n" * 65, b"f" * 16 + b"\r\n"],
)  # fmt: skip
def test_framing_that_is_wrong_ends_a_body(wire: bytes) -> None:
    with pytest.raises(BrokenBody):
        Chunked().feed(memoryview(wire))


@given(st.binary(max_size=100))
def test_any_bytes_are_a_chunked_body_or_not(data: bytes) -> None:
    body = Chunked()
    with contextlib.suppress(BrokenBody):
        assert 0 <= body.feed(memoryview(data)) <= len(data)

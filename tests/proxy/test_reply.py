"""A runtime's short answer, gathered whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.proxy.http1.errors import BrokenResponse
from sandpost.proxy.reply import OtherWire, Reply

WHOLE = b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ncontent-length: 5\r\n\r\nhello"


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8))
def test_however_it_is_cut_it_is_whole_with_its_last_byte(cuts: list[int]) -> None:
    reply = Reply("GET", 5)
    ends = [*sorted(cuts), len(WHOLE)]
    begin = 0
    for end in ends:
        head = reply.feed(WHOLE[begin:end])
        assert (head is not None) == (end == len(WHOLE))
        if head is not None:
            assert (head.status, reply.body) == (200, b"hello")
            return
        begin = end


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (WHOLE.replace(b"5", b"6") + b"!", "longer than 5 bytes"),
        (WHOLE + b"more", "bytes follow"),
        (b"nonsense\r\n\r\n", "status line"),
    ],
)
def test_what_is_no_answer_is_told(said: bytes, words: str) -> None:
    with pytest.raises(BrokenResponse) as raised:
        Reply("GET", 5).feed(said)
    assert words in raised.value.rule


@pytest.mark.parametrize(("line", "wire"), [(b"x-sandpost-wire: 2\r\n", b"2"), (b"", b"none")])
def test_another_wire_is_told_before_the_body_is_read(line: bytes, wire: bytes) -> None:
    with pytest.raises(OtherWire) as raised:
        Reply("GET", 5).feed(b"HTTP/1.1 200 OK\r\n" + line + b"content-length: 500\r\n\r\n")
    assert raised.value.wire == wire

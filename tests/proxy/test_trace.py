"""Which trace a request says it belongs to, by the rules of W3C Trace Context."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.proxy.trace import trace_id

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.mark.parametrize(
    "value",
    [
        f"00-{TRACE}-{PARENT}-00",
        f"00-{TRACE}-{PARENT}-ff",
        # Of versions to come the beginning is known.
        f"01-{TRACE}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01-what.the-future=holds",
        f"fe-{TRACE}-{PARENT}-01-",
    ],
)
def test_a_valid_one_is_known_by_its_trace(value: str) -> None:
    assert trace_id([(b"host", b"x"), (b"traceparent", value.encode())]) == TRACE


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-0",
        f"00-{TRACE}-{PARENT}-1g",
        f"00-{TRACE}-{PARENT}-01-",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}-01 ",
        f"01-{TRACE}-{PARENT}-01more",
        f"ff-{TRACE}-{PARENT}-01",
        f"0-{TRACE}-{PARENT}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}0-{PARENT}-01",
        f"00-{TRACE}-{PARENT.upper()}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00_{TRACE}_{PARENT}_01",
        f"00-{TRACE}-{PARENT}-01,00-{TRACE}-{PARENT}-01",
    ],
)
def test_an_invalid_one_is_none(value: str) -> None:
    assert trace_id([(b"traceparent", value.encode())]) == ""


def test_two_of_them_are_none() -> None:
    one = (b"traceparent", f"00-{TRACE}-{PARENT}-01".encode())
    assert trace_id([one, (b"tracestate", b"a=1")]) == TRACE
    assert trace_id([one, one]) == ""


@given(st.binary(max_size=80) | st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.*", fullmatch=True))
def test_whatever_it_is_what_comes_out_is_a_trace_id_or_nothing(value: bytes) -> None:
    found = trace_id([(b"traceparent", value)])
    assert found == "" or (
        found.encode() == value[3:35] and set(found) <= set("0123456789abcdef") and set(found) != {"0"}
    )

"""What query and headers of a stream's request mean."""

import contextlib
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.api.logs.asking import Form, read
from sandpost.bus.contract import Start
from sandpost.model.errors import InvalidValue

NOW = 1_700_000_000.0


def asked(query: str = "", **headers: str) -> object:
    return read(query.encode(), {name.replace("_", "-"): value for name, value in headers.items()}, NOW)


def test_nothing_said_is_lines_from_now_on_for_ever() -> None:
    seen = read(b"key=K", {}, NOW)
    assert seen.start == Start()
    assert (seen.form, seen.most, seen.timeout, seen.follow, seen.gzip) == (Form.LINES, None, None, True, False)


@given(st.integers(0, (1 << 53) - 1), st.integers(1, 86_400_000), st.text(min_size=1, max_size=50))
def test_what_is_said_is_meant(offset: int, timeout: int, value: str) -> None:
    query = urlencode({"offset": offset, "timeout": timeout, "f.a.b": value}, errors="replace").encode()
    seen = read(query, {}, NOW)
    assert seen.start == Start(offset=offset)
    assert seen.timeout == timeout / 1000
    assert seen.wanted.fields == (("a.b", value.encode(errors="replace").decode()),)


@given(st.binary(max_size=60), st.text(max_size=20))
def test_any_query_is_taken_or_refused_as_wrong(query: bytes, header: str) -> None:
    headers = {"accept": header, "accept-encoding": header, "last-event-id": header}
    with contextlib.suppress(InvalidValue):
        read(query, headers, NOW)


def test_a_time_is_ago_or_a_moment() -> None:
    for text, since in (("10m", NOW - 600), ("1970-01-02", 86400), ("1970-01-01T00:00:10Z", 10), ("77", 77)):
        assert read(f"since={text}".encode(), {}, NOW).start == Start(since=since)
    assert read(b"since=1000000d", {}, NOW).start == Start(since=0)
    assert read(b"tail=9&since=10m", {}, NOW).start == Start(tail=9, since=NOW - 600)


def test_the_last_event_wins_over_where_the_first_connection_began() -> None:
    assert read(b"tail=9", {"last-event-id": "41"}, NOW).start == Start(offset=42)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("text/event-stream", Form.EVENTS),
        ("Text/Event-Stream;q=0.5, */*", Form.EVENTS),
        ("text/event-stream;q=0", Form.LINES),
        ("text/event-stream; q=0.000, text/plain", Form.LINES),
        ("*/*", Form.LINES),
        ("text/event-streams", Form.LINES),
        ("", Form.LINES),
    ],
)
def test_events_are_for_who_accepts_them_by_name(accept: str, form: Form) -> None:
    assert read(b"", {"accept": accept}, NOW).form is form


def test_a_wrong_name_is_told_with_the_right_one() -> None:
    with pytest.raises(InvalidValue, match="did you mean `offset`"):
        asked("ofset=1")

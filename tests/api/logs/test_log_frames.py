"""Records as lines and events: by text, whole, and with nothing in them that ends one too early."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sandpost.api.logs.asking import Form
from sandpost.api.logs.filters import EVERYTHING, Filter, Wanted
from sandpost.api.logs.frames import End, Scribe
from sandpost.bus.contract import Missing, Record
from sandpost.client.following import Event, events

LINES = Scribe("acme", Form.LINES, "here", 7)
EVENTS = Scribe("acme", Form.EVENTS, "here", 7)
ALL = Filter(EVERYTHING)
RECORDS = st.dictionaries(st.text(max_size=5), st.text(max_size=10) | st.integers() | st.none(), max_size=4)
ITEMS = st.lists(RECORDS, max_size=6)


def items(records: list[dict[str, Any]], separators: tuple[str, str] = (",", ":")) -> list[Record | Missing]:
    return [Record(2 * at, json.dumps(one, separators=separators).encode()) for at, one in enumerate(records)]


@given(ITEMS)
def test_a_line_is_the_record_and_its_offset(records: list[dict[str, Any]]) -> None:
    written = LINES.piece(items(records), ALL, 0.0)
    assert written.records == len(records)
    lines = written.data.split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == [{**one, "offset": 2 * at} for at, one in enumerate(records)]


@given(ITEMS, st.integers(1, 30))
def test_events_are_read_back_however_they_are_cut(records: list[dict[str, Any]], size: int) -> None:
    data = EVENTS.piece(items(records), ALL, 0.0).data + EVENTS.ended(End.TOLD, 0.0)
    chunks = iter([data[at : at + size] for at in range(0, len(data), size)])
    *seen, last = events(chunks)
    assert [json.loads(one.record) for one in seen] == [{**one, "offset": 2 * at} for at, one in enumerate(records)]
    assert [one.offset for one in seen] == [2 * at for at in range(len(records))]
    assert last == Event(end="told", why=End.TOLD.value)


def test_a_return_between_the_parts_of_a_record_does_not_end_an_event() -> None:
    written = EVENTS.piece(items([{"a": "b"}], (",\r", ":\r")), ALL, 0.0)
    assert b"\r" not in written.data
    (event,) = events(iter([written.data]))
    assert json.loads(event.record) == {"a": "b", "offset": 0}


@given(ITEMS, st.integers(1, 4))
def test_no_more_than_asked_for_are_written(records: list[dict[str, Any]], most: int) -> None:
    written = LINES.piece(items(records), ALL, 0.0, most)
    assert written.records == written.data.count(b"\n") == min(most, len(records))


def test_what_is_missing_stands_where_it_was_whatever_is_filtered() -> None:
    gap: list[Record | Missing] = [Record(4, b'{"level":30}'), Missing(5, 9, "they were removed"), Record(9, b"{}")]
    written = LINES.piece(gap, Filter(Wanted(level=60)), 0.0)
    said = json.loads(written.data)
    assert (said["offset"], said["missing"], said["next"], said["container"]) == (8, 4, 9, "acme")
    assert written.records == 0
    assert "offsets 5 to 8: they were removed" in said["msg"]
    (event,) = events(iter([EVENTS.piece(gap, Filter(Wanted(level=60)), 0.0).data]))
    assert event.offset == 8


def test_a_stream_that_began_anew_misses_no_negative_number_and_has_no_offset_before_the_first() -> None:
    gap: list[Record | Missing] = [Missing(0, 0, "the bus was made anew")]
    said = json.loads(LINES.piece(gap, ALL, 0.0).data)
    assert (said["missing"], said["next"], "offset" in said) == (0, 0, False)
    assert said["msg"] == "records may be missing here: the bus was made anew"
    (event,) = events(iter([EVENTS.piece(gap, ALL, 0.0).data]))
    assert event.offset is None


def test_every_end_is_told_but_the_one_that_the_lines_count() -> None:
    for end in End:
        said = LINES.ended(end, 0.0)
        if end is End.MAX:
            assert said == b""
        else:
            assert json.loads(said)["end"] == end.word
        assert EVENTS.ended(end, 0.0).startswith(b": end " + end.word.encode())
    assert "container" not in json.loads(Scribe(None, Form.LINES, "here", 7).ended(End.TIMEOUT, 0.0))

"""A record's line gets its offset, whatever it holds."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.bus.batches import stream_name, with_offset
from sandpost.model.names import SYSTEM

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text().filter(lambda name: name != "offset"), JSON), st.integers(0, (1 << 53) - 1))
def test_a_record_gets_its_offset_as_its_last_field_and_is_else_as_it_was(
    record: dict[str, object], offset: int
) -> None:
    for separators in ((",", ":"), (", ", ": ")):
        line = json.dumps(record, separators=separators).encode()
        given_back = with_offset(line, offset)
        assert given_back.startswith(line[:-1])
        pairs = json.loads(given_back, object_pairs_hook=list)
        assert pairs[-1] == ["offset", offset] or pairs[-1] == ("offset", offset)
        assert json.loads(given_back) == {**record, "offset": offset}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"{}", b'{"offset":7}'),
        (b"{ }", b'{ "offset":7}'),
        (b'{"a":1}', b'{"a":1,"offset":7}'),
        (b'{"a":"{"}', b'{"a":"{","offset":7}'),
        (b'{"a":{}}', b'{"a":{},"offset":7}'),
    ],
)
def test_it_stands_before_the_closing_brace(line: bytes, expected: bytes) -> None:
    assert with_offset(line, 7) == expected


@pytest.mark.parametrize("line", [b"", b"[]", b'{"a":1}\n', b'"}"'])
def test_what_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="JSON object"):
        with_offset(line, 7)


def test_streams_are_named_as_tenants_and_one_more() -> None:
    assert [stream_name(name) for name in ("acme", SYSTEM)] == ["acme", ".system"]

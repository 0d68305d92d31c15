import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.logs import bunyan, records
from sandpost.logs.programs import MAX_DEPTH, OURS, recognise
from sandpost.logs.said import Said
from sandpost.logs.text import safe_text

CORE: dict[str, Any] = {
    "name": "shop", "hostname": "web-1", "pid": 123, "level": 30, "msg": "paid", "time": "2024-05-17T12:00:00.125Z", "v": 0,
}  # fmt: skip
SCRIBE = records.Scribe(hostname="h", tenant="acme", sandbox_id="0123456789ab")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
names = (
    st.text(max_size=8)
    | st.sampled_from(sorted(OURS | CORE.keys()))
    | st.sampled_from(["app.", "app.pid", "pid\x1b[0m"])
)


def text_of(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


def test_a_record_of_bunyans_is_recognised_and_nothing_less() -> None:
    found = recognise(text_of(CORE))
    assert found is not None
    assert {name: found[name] for name in ("name", "level", "msg")} == {"name": "shop", "level": 30, "msg": "paid"}
    for name in CORE:
        assert recognise(text_of({key: value for key, value in CORE.items() if key != name})) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", 1), ("hostname", None), ("pid", "1"), ("pid", 1.5), ("pid", True), ("level", "info"), ("level", True),
        ("level", 0), ("level", 1 << 40), ("level", 30.0), ("msg", None), ("msg", {}), ("time", 1715947200125),
        ("time", "now"), ("time", "2024-05-17T12:00:00.125Z\n"), ("v", "0"), ("v", -1), ("v", None),
    ],
)  # fmt: skip
def test_another_type_makes_it_text(name: str, value: object) -> None:
    assert recognise(text_of({**CORE, name: value})) is None


@pytest.mark.parametrize(
    "more",
    [
        b'"a":NaN', b'"a":Infinity', b'"a":1e999', b'"a":' + b"9" * 400, b'"a":9223372036854775808', b'"a":"\\ud800"',
        b'"a":"\\udc00\\ud800"', b'"a":"\xff"', b'"a":"\x01"', b'"a":01', b'"a":', b'"a":1}}',
        b'"a":' + b"[" * 7000 + b"]" * 7000, b'"a":' + b'{"b":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH,
    ],
)  # fmt: skip
def test_hostile_json_is_text(more: bytes) -> None:
    assert recognise(text_of(CORE)[:-1] + b"," + more + b"}") is None


def test_of_a_name_that_comes_twice_the_last_counts_and_ours_cannot_be_met() -> None:
    twice = text_of(CORE)[:-1] + b',"msg":"second","pid":5,"pid\\u001b[0m":6,"container\\u001b[1m":"other"}'
    found = recognise(twice)
    assert found is not None
    assert (found["msg"], found["app.pid"], found["app.container"]) == ("second", 6, "other")
    assert not OURS & found.keys()
    # Not of bunyan's types any more, once it is as it is shown.
    assert recognise(text_of(CORE)[:-1] + b',"msg\\u001b[0m":[]}') is None


def test_strings_are_safe_wherever_they_stand() -> None:
    found = recognise(text_of({**CORE, "msg": "\x1b[31mred\x07", "a\x00": ["\u202eturned", {"b\x9b": "\x1b]0;x"}]}))
    assert found is not None
    assert (found["msg"], found["a\u2400"]) == ("red\u2407", ["\ufffdturned", {"b\ufffd": "\u241b]0;x"}])


@given(st.dictionaries(names, values, max_size=6), st.booleans())
def test_whatever_a_program_says_ours_are_ours(more: dict[str, Any], real: bool) -> None:
    text = text_of({**more, **CORE} if real else {**CORE, **more})
    line = SCRIBE.line(Said(50, None, text, 1), bunyan.timestamp(0.0), raw=True)
    assert line.count(b"\n") == 1
    assert b"\xff" not in line
    record = msgspec.json.decode(line)
    ours = {"hostname": "h", "pid": 1, "time": "1970-01-01T00:00:00.000Z", "v": 0}
    ours |= {"container": "acme", "sandbox": True, "sandbox_id": "0123456789ab"}
    assert {name: record[name] for name in ours} == ours
    assert "req_id" not in record
    assert "offset" not in record
    assert all(name == safe_text(name.encode()) for name in record)


@given(st.binary(max_size=200))
def test_any_bytes_between_braces_do_not_raise(inside: bytes) -> None:
    recognise(b"{" + inside + b"}")
    recognise(text_of(CORE)[:-1] + b"," + inside + b"}")

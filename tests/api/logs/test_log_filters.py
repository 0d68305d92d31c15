"""What passes a filter, against a plain model of it; and what no pattern can do."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.api.logs.filters import EVERYTHING, Filter, Wanted, level
from sandpost.model.errors import InvalidValue

NAMES = st.sampled_from(["a", "b", "a.b", "b.a", "a.b.a", "", "."])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "1", "true"]),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def found(record: dict[str, Any], name: str) -> Any:
    """The field as docs/logs.md says: called so, dots and all, else part by part."""
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return KeyError
        value = value[part]
    return value


@given(st.dictionaries(NAMES, VALUES, max_size=4), NAMES.filter(bool), st.booleans())
def test_a_field_is_its_literal_name_else_the_way_into_the_record(
    record: dict[str, Any], name: str, there: bool
) -> None:
    value = found(record, name)
    text = "a"
    if there and value is not KeyError:
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    expected = value is not KeyError and (there or value == text)
    assert Filter(Wanted(fields=((name, text),))).passes(json.dumps(record).encode(), 1) is expected


@given(st.integers(0, 70) | st.text() | st.none(), st.sampled_from([1, 30, 40, 60]))
def test_a_level_is_at_least_that(value: Any, least: int) -> None:
    passes = Filter(Wanted(level=least)).passes(json.dumps({"level": value}).encode(), 0)
    assert passes is (isinstance(value, int) and value >= least)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_a_negated_pattern_passes_what_the_pattern_does_not(text: str) -> None:
    record = json.dumps({"msg": text}).encode()
    for pattern in ("a", "^$", "[^a-z]", "é|\\pL"):
        assert Filter(Wanted(message=pattern)).passes(record, 0) is not Filter(Wanted(message="!" + pattern)).passes(
            record, 0
        )


def test_two_exclamation_marks_are_one_of_the_pattern() -> None:
    assert Filter(Wanted(message="!!a")).passes(b'{"msg":"!a"}', 0)
    assert not Filter(Wanted(message="!!a")).passes(b'{"msg":"a"}', 0)


def test_no_pattern_and_no_text_make_one_hang() -> None:
    # Seconds to years in engines that go back.
    hard = Filter(Wanted(message="(a|a|aa)*(a*)*(a+)+$"))
    record = json.dumps({"msg": "a" * 16_000 + "b"}).encode()
    assert not hard.passes(record, 0)


@pytest.mark.parametrize("pattern", ["(", "a{2000}", "(?=x)", "\\1", "[", "x" * 1001, "(((\\pL{100}){10}){10})"])
def test_a_pattern_that_is_none_or_too_large_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidValue, match="pattern"):
        Filter(Wanted(message=pattern))


@pytest.mark.parametrize("name", ['a"', "a\\b", "a\n", "\0", "a.b\x1f"])
def test_a_name_that_no_record_is_looked_through_for_is_refused(name: str) -> None:
    with pytest.raises(InvalidValue, match="name cannot be asked for"):
        Filter(Wanted(fields=((name, "x"),)))


def test_without_a_wish_everything_passes_unparsed() -> None:
    everything = Filter(EVERYTHING)
    assert not everything.works
    assert everything.passes(b"no JSON at all", 0)
    assert not Filter(Wanted(level=1)).passes(b"no JSON at all", 0)


def test_levels_have_names_and_numbers() -> None:
    assert [level(text) for text in ("trace", "warn", "fatal", "0", "35")] == [10, 40, 60, 0, 35]
    for text in ("", "loud", "-1", "1000", "٣"):
        with pytest.raises(InvalidValue, match="trace, debug"):
            level(text)

"""What limits may be, and how they are written."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.model.bounds import BOUNDS, check_together, format_limit, nearest, parse_limit
from sandpost.model.errors import InvalidValue
from sandpost.model.limits import Limits, MiB


def test_every_limit_has_a_bound_that_its_default_keeps() -> None:
    assert set(BOUNDS) == set(Limits.__struct_fields__)
    for name in BOUNDS:
        value = getattr(Limits(), name)
        assert parse_limit(name, value) == value
    check_together(Limits())
    check_together(Limits(), "per_request")


@given(st.sampled_from(sorted(BOUNDS)), st.data())
def test_what_is_shown_is_read_back(name: str, data: st.DataObject) -> None:
    bound = BOUNDS[name]
    value = parse_limit(name, data.draw(st.integers(int(bound.least) or 1, int(min(bound.greatest, 1 << 40)))))
    assert parse_limit(name, format_limit(name, value)) == value


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("memory", "64MiB", 64 * MiB),
        ("memory", 64 * MiB, 64 * MiB),
        ("memory", float(64 * MiB), 64 * MiB),
        ("deadline", "5s", 5.0),
        ("deadline", 5, 5.0),
        ("blocked_after", "1500ms", 1.5),
        ("idle", 0, 0),
        ("idle", "0", 0),
        ("body", 0, 0),
        ("cpu", "0.5", 0.5),
        ("pids", "32", 32),
    ],
)
def test_numbers_and_text_with_units_mean_the_same(name: str, value: Any, expected: float) -> None:
    assert parse_limit(name, value) == expected


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("memroy", 1, "did you mean `memory`"),
        ("memory", "64MB", "such as 128MiB"),
        ("memory", "1MiB", "choose 32MiB to 1TiB"),
        ("memory", True, "such as `64MiB`"),
        ("memory", None, "such as `64MiB`"),
        ("memory", [], "such as `64MiB`"),
        ("memory", 1e300, "choose 32MiB"),
        ("memory", float("inf"), "limits.memory"),
        ("deadline", "5", "such as 30s"),
        ("deadline", 0, "choose 1s to 1h"),
        ("deadline", "2h", "choose 1s to 1h"),
        ("deadline", float("nan"), "nan is not a number of seconds"),
        ("cpu", "inf", "`inf` is not a number"),
        ("rate", -1, "or 0 for no limit"),
        ("pids", 20.5, "whole number"),
        ("pids", "many", "whole number"),
        ("tmp", 0, "choose 64KiB"),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(name: str, value: Any, told: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_limit(name, value)
    assert told in caught.value.message
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("limits", "isolation"),
    [
        (Limits(memory=32 * MiB, memory_guaranteed=33 * MiB), "per_tenant"),
        (Limits(code=2 * MiB, stored_code=1 * MiB), "per_tenant"),
        (Limits(memory=32 * MiB), "per_request"),
        (Limits(pids=16), "per_request"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(limits: Limits, isolation: Any) -> None:
    with pytest.raises(InvalidValue, match="raise"):
        check_together(limits, isolation)
    if isolation == "per_request":
        check_together(limits, "per_tenant")


def test_a_name_like_none_gets_the_list() -> None:
    assert nearest("zzz", ["b", "a"]) == ": there are `a`, `b`"

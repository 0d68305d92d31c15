"""Sizes and durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.model.errors import ConfigError
from sandpost.model.units import format_duration, format_size, parse_duration, parse_size, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("4096", 4096), ("1KiB", 1024), ("1.5 MiB", 1572864), ("128MiB", 128 << 20), ("2TiB", 2 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1MB", "1mib", "1e3", "0x10", "1,5MiB", "\u0661MiB", "5s"])
def test_what_is_no_size_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ConfigError, match="128MiB"):
        parse_size(text)


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("5s", 5), ("2m", 120), ("1.5h", 5400), ("7d", 604800)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "5 sec", "5S", "5MiB", "1m30s"])
def test_what_is_no_duration_says_how_to_write_one(text: str) -> None:
    with pytest.raises(ConfigError, match="30s"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_formatted_size_reads_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(min_value=0, max_value=10_000_000))
def test_a_formatted_duration_reads_back(millis: int) -> None:
    assert parse_duration(format_duration(millis / 1000)) == pytest.approx(millis / 1000)


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (64 << 10, "64 KiB"), (3 << 29, "1.5 GiB"), (128 << 20, "128 MiB")],
)
def test_sizes_for_people(count: int, shown: str) -> None:
    assert show_size(count) == shown

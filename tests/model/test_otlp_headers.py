"""The file of headers that go with each request of OTLP."""

import pytest

from sandpost.model.errors import ConfigError
from sandpost.model.otlp import headers


def test_a_line_is_a_header() -> None:
    text = "X-Api-Key: abc:def \n\n  \nauthorization:Bearer x\nempty:\n"
    assert headers(text) == {"x-api-key": "abc:def", "authorization": "Bearer x", "empty": ""}


@pytest.mark.parametrize("text", ["s3cret", "a b: s3cret", ": s3cret", "x: s3cr\u00e9t", "x: s3cret\0", " x: s3cret"])
def test_what_is_none_is_told_by_its_line_and_without_its_value(text: str) -> None:
    with pytest.raises(ConfigError, match="line 2 of") as error:
        headers(f"good: 1\n{text}\n")
    assert "s3cr" not in error.value.message

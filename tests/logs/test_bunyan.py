from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from sandpost.logs.bunyan import timestamp


@given(st.integers(min_value=0, max_value=4_000_000_000_000))
def test_timestamp_is_the_time_to_the_millisecond(milliseconds: int) -> None:
    at = datetime.fromtimestamp(milliseconds // 1000, tz=UTC).replace(microsecond=milliseconds % 1000 * 1000)
    expected = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    # Half a microsecond above, so that a binary fraction does not fall below its millisecond.
    assert timestamp(milliseconds / 1000 + 5e-7) == expected

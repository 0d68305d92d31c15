from hypothesis import given
from hypothesis import strategies as st

from sandpost.collector.mark import HEAD, MAX_RANGES, Mark, Range, decode, encode

positions = st.integers(0, (1 << 63) - 1)


def ranges_of(mark: Mark) -> list[tuple[int, int]]:
    return [(one.begin, one.end) for one in mark.ranges]


def test_what_is_dropped_behind_what_is_on_its_way_counts_when_that_is_kept() -> None:
    mark = Mark("acme", kept=10)
    mark.drop(20, 30, torn=True)
    mark.drop(40, 50, torn=False)
    mark.keep(15)
    assert (mark.kept, ranges_of(mark)) == (15, [(20, 30), (40, 50)])
    mark.keep(20)
    assert (mark.kept, mark.torn, ranges_of(mark)) == (30, True, [(40, 50)])
    mark.keep(60)
    assert (mark.kept, mark.torn, ranges_of(mark)) == (60, False, [])
    mark.keep(50)
    assert mark.kept == 60


def test_ranges_that_touch_are_one() -> None:
    mark = Mark("acme")
    for begin in range(10, 1000, 10):
        mark.drop(begin, begin + 10, torn=begin == 990)
    assert mark.ranges == [Range(10, 1000, torn=True)]


def test_a_range_before_what_a_former_process_dropped_stands_before_it() -> None:
    mark = Mark("acme")
    mark.drop(50, 60, torn=True)
    mark.drop(80, 90, torn=False)
    mark.drop(20, 30, torn=False)
    mark.drop(60, 60, torn=False)
    assert mark.ranges == [Range(20, 30, torn=False), Range(50, 60, torn=True), Range(80, 90, torn=False)]
    mark.drop(60, 80, torn=True)
    assert mark.ranges == [Range(20, 30, torn=False), Range(50, 90, torn=False)]
    mark.drop(40, 50, torn=False)
    assert mark.ranges[1] == Range(40, 90, torn=False)


def test_with_nothing_on_its_way_all_is_kept_or_dropped() -> None:
    mark = Mark("acme", kept=10)
    mark.drop(10, 30, torn=True)
    mark.settle(30, torn=True)
    assert (mark.kept, mark.torn, mark.ranges) == (30, True, [])


@given(
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True),
    positions,
    st.booleans(),
    st.lists(positions, min_size=2, max_size=2),
    st.lists(st.builds(Range, positions, positions, st.booleans()), max_size=MAX_RANGES + 8),
)
def test_a_mark_is_read_as_it_was_written_and_fits(
    tenant: str,
    kept: int,
    torn: bool,
    counts: list[int],
    ranges: list[Range],
) -> None:
    mark = Mark(tenant, kept=kept, torn=torn, dropped=counts, told=counts[::-1], ranges=ranges)
    blob = encode(mark)
    assert len(blob) <= HEAD
    assert decode(blob.ljust(HEAD, b"\0")) == mark


@given(st.binary(max_size=200))
def test_what_is_no_mark_is_none(blob: bytes) -> None:
    assert decode(blob) is None
    assert decode(encode(Mark("acme"))[:-1] + blob[:1]) is None or blob[:1] == encode(Mark("acme"))[-1:]

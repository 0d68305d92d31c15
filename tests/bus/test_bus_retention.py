"""What goes first when there is too much."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sandpost.bus.retention import Limits, Retention

BLOCK = 4096


def all_to_go(retention: Retention, now: float = 0.0, look: int = 100) -> list[tuple[str, int]]:
    """Remove what has to go until nothing has."""
    gone = []
    while (found := retention.next_to_go(now, look)) is not None:
        gone.append(found)
        retention.remove(*found)
    return gone


def test_a_stream_gives_its_oldest_segments_until_it_has_its_bytes() -> None:
    retention = Retention(Limits(stream_bytes=10 * BLOCK))
    for base in range(12):
        retention.put("acme", base, BLOCK, 0.0)
    retention.put("other", 0, 10 * BLOCK, 0.0)
    assert all_to_go(retention) == [("acme", 0), ("acme", 1)]
    assert retention.bases("acme") == list(range(2, 12))
    assert retention.total == 20 * BLOCK


def test_a_segment_that_grows_is_counted_once_and_by_whole_blocks() -> None:
    retention = Retention(Limits())
    for size in (1, 5000, 9000):
        retention.put("acme", 0, size, 0.0)
    assert retention.total == 3 * BLOCK
    retention.put("acme", 7, 0, 0.0)
    assert retention.total == 3 * BLOCK
    retention.remove("acme", 5)
    retention.remove("other", 0)
    assert retention.total == 3 * BLOCK
    retention.remove("acme", 0)
    assert (retention.total, retention.bases("acme")) == (0, [7])


def test_records_go_by_age_but_an_empty_last_segment_stays() -> None:
    retention = Retention(Limits(seconds=100))
    for base, written in ((0, 10.0), (5, 50.0), (9, 60.0)):
        retention.put("acme", base, BLOCK, written)
    retention.put("gone", 7, 0, 0.0)
    assert all_to_go(retention, 110.0) == []
    assert all_to_go(retention, 151.0) == [("acme", 0), ("acme", 5)]
    assert all_to_go(retention, 1e9) == [("acme", 9)]
    # An empty one that has a successor keeps nothing.
    retention.put("gone", 8, 0, 1.0)
    assert all_to_go(retention, 1e9) == [("gone", 7)]


def test_of_many_streams_so_many_are_looked_at_and_all_in_turns() -> None:
    retention = Retention(Limits(seconds=100))
    for one in range(1000):
        retention.put(f"t{one}", 0, BLOCK, 0.0 if one % 100 == 0 else 1e9)
    gone = []
    for _ in range(1000 // 50 + 10):
        found = retention.next_to_go(1000.0, 50)
        if found is not None:
            gone.append(found[0])
            retention.remove(*found)
    assert sorted(gone) == sorted(f"t{one}" for one in range(0, 1000, 100))


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 40)), min_size=1, max_size=80),
    st.integers(5, 60),
    st.integers(5, 120),
)
def test_who_holds_most_gives_first_and_no_more_than_has_to_be(
    sizes: list[tuple[str, int]], stream_blocks: int, total_blocks: int
) -> None:
    retention = Retention(Limits(stream_bytes=stream_blocks * BLOCK, total_bytes=total_blocks * BLOCK))
    held: dict[str, list[int]] = {}
    for base, (stream, blocks) in enumerate(sizes):
        retention.put(stream, base, blocks * BLOCK, 0.0)
        held.setdefault(stream, []).append(blocks)
    while (found := retention.next_to_go(0.0, 100)) is not None:
        stream, _ = found
        sums = {one: sum(blocks) for one, blocks in held.items()}
        over = sums[stream] > stream_blocks
        assert over or (sum(sums.values()) > total_blocks and sums[stream] == max(sums.values()))
        retention.remove(*found)
        held[stream].pop(0)
    sums = {one: sum(blocks) for one, blocks in held.items()}
    assert all(blocks <= stream_blocks for blocks in sums.values())
    assert sum(sums.values()) <= total_blocks
    assert retention.total == sum(sums.values()) * BLOCK
    assert Counter({one: len(retention.bases(one)) for one in held}) == Counter(
        {one: len(b) for one, b in held.items()}
    )


def test_segments_are_a_sixteenth_of_a_small_stream_and_never_more_than_four_mebibytes() -> None:
    assert Limits().segment_bytes == 4 << 20
    assert Limits(stream_bytes=1 << 20).segment_bytes == 1 << 16
    assert Limits(stream_bytes=1 << 30).segment_bytes == 4 << 20
    assert Limits().segment_seconds == 6 * 3600

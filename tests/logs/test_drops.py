"""The sentence that tells of dropped lines."""

from sandpost.logs.drops import dropped, over_rate


def test_dropped_lines_are_told_in_a_sentence() -> None:
    assert dropped(1204, 3.0, over_rate(1 << 20)) == "1,204 lines dropped in 3.0 s: over 1 MiB/s"
    assert dropped(1, 0.1, over_rate(1000)) == "1 line dropped in 0.1 s: over 1000 B/s"

"""Limits that are met without an end are told once when it begins, and then how often."""

from sandpost.controller.hits import AGAIN, Hit, Hits
from sandpost.model.limits import Limits
from sandpost.walls.pressure import Pressure

LIMITS = Limits()
CALM = Pressure(refused=0, tmp_full=False, inodes_full=False, files_full=False)
PIDS = "pids: 64 processes and threads reached (`limits.pids`)"


def seen(refused: int = 0, *, tmp_full: bool = False, inodes_full: bool = False, files_full: bool = False) -> Pressure:
    return Pressure(refused=refused, tmp_full=tmp_full, inodes_full=inodes_full, files_full=files_full)


def test_nothing_met_tells_nothing() -> None:
    assert Hits().look(CALM, LIMITS, 0) == []


def test_each_kind_has_its_word_its_amount_and_its_setting() -> None:
    hits = Hits()
    told = hits.look(seen(3, tmp_full=True, files_full=True), LIMITS, 0)
    assert told == [
        Hit("pids", PIDS, 3),
        Hit("disk", "disk: 64 MiB in /tmp reached (`limits.tmp`)", 1),
        Hit("files", "files: 1,024 open files reached (`limits.files`)", 1),
    ]
    told = Hits().look(seen(inodes_full=True), LIMITS, 0)
    assert told == [Hit("disk", "disk: 16,384 files in /tmp reached (`limits.tmp_inodes`)", 1)]


def test_a_state_that_stays_is_told_once_and_again_when_it_comes_again() -> None:
    hits = Hits()
    assert len(hits.look(seen(tmp_full=True), LIMITS, 0)) == 1
    assert hits.look(seen(tmp_full=True), LIMITS, AGAIN + 1) == []
    assert hits.look(CALM, LIMITS, AGAIN + 2) == []
    assert len(hits.look(seen(tmp_full=True), LIMITS, AGAIN + 3)) == 1


def test_a_storm_is_told_at_most_every_ten_seconds_and_counted_whole() -> None:
    hits = Hits()
    told = [hit for second in range(31) for hit in hits.look(seen(second * 100), LIMITS, float(second))]
    assert [hit.times for hit in told] == [100, 1000, 1000]
    assert {hit.text for hit in told} == {PIDS}
    assert hits.look(seen(3000), LIMITS, 31) == [Hit("pids", PIDS, 900)]

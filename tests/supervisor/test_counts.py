"""The supervisor's figures reach the metrics listener: no label of theirs is one that the listener sets itself."""

from pathlib import Path

from sandpost.api.metrics import Figured, read
from sandpost.supervisor.counts import Counts


def test_unexpected_ends_of_parts_reach_the_listener(tmp_path: Path) -> None:
    counts = Counts()
    counts.ends["proxy"] += 1
    counts.write(str(tmp_path), children=5, fifos=0)
    samples = [sample for family in Figured(*read(str(tmp_path))).collect() for sample in family.samples]
    ends = [sample for sample in samples if sample.name == "sandpost_part_ends_total"]
    assert {sample.labels["part"] for sample in ends} == {"supervisor"}
    assert {sample.labels["ended_part"]: sample.value for sample in ends} == {
        "api": 0, "collector": 0, "controller": 0, "egress": 0, "proxy": 1,
    }  # fmt: skip

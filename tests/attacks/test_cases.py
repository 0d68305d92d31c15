"""Every case of the catalogue against a really started platform, with a neighbour that is called all the while."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandpost.client import Client
from sandpost.selftest.attacker import Door
from sandpost.selftest.catalogue import Named, catalogue
from sandpost.selftest.host import Look
from sandpost.selftest.runner import Runner
from support.lab import lab
from support.platform import Platform, platform

CASES = catalogue()


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    with platform(pool_size="4") as started:
        yield started


@pytest.fixture(scope="module")
def runner(running: Platform, request: pytest.FixtureRequest) -> Iterator[Runner]:
    """Cases as whoever runs `sandpost selftest` as root on the host, but with the host's own defaults as limits."""

    def log(tenant: str) -> list[dict[str, Any]]:
        lines = []
        for name in (f"{tenant}.log.1", f"{tenant}.log"):
            path = Path(running.host.logs_dir, name)
            lines += path.read_text(errors="replace").splitlines() if path.exists() else []
        return [json.loads(line) for line in lines]

    parameters = [item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")]
    wanted = {one.name for one in parameters if isinstance(one, Named)}
    cases = [one for one in CASES if one.name in wanted]
    door = Door(url=f"http://127.0.0.1:{running.port}", key=running.key, context=None)
    with (
        Client(url=door.url, key=door.key) as client,
        Runner(door, client, cases, look=Look(running.host), log=log) as made,
    ):
        yield made


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(one, id=one.name, marks=() if one.case.quick else pytest.mark.long)
        for one in CASES
        if one.case.part != "network"
    ],
)
def test_a_case_is_withstood(runner: Runner, case: Named) -> None:
    verdict = runner.try_case(case)
    neighbour = verdict.neighbour
    if neighbour is not None:
        quiet = runner.quiet
        print(
            f"neighbour p99 {neighbour.p99 * 1000:.1f} ms ({quiet.p99 * 1000:.1f} ms quiet) over {neighbour.calls} calls"
        )
    assert verdict.outcome == "held", verdict.seen


def test_no_case_finds_a_way_where_none_should_be() -> None:
    """In a lab, where every address that a case tries is there and listens, and no packet leaves the machine."""
    names = [one.name for one in CASES if one.case.part == "network"]
    with lab() as laboratory, platform(laboratory.host, pool_size="3") as running:
        done = running.command("selftest", "--json", *(word for name in names for word in ("--case", name)))
        verdicts = json.loads(done.stdout)
    assert [one["name"] for one in verdicts] == names
    assert [one for one in verdicts if one["outcome"] != "held"] == []


def test_every_case_says_what_it_tries_why_and_what_must_be_seen() -> None:
    for one in CASES:
        assert "\nWeaker: " in one.text, one.name
        assert "\nMust: " in one.text, one.name
        assert one.case.title

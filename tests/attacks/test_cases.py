"""Every case of the catalogue against a really started platform, with a neighbour that is called all the while.

On runc and on runsc: what gVisor's kernel gives instead stands in the cases, by `Attacker.engine`.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark import ParameterSet

from sandpost.client import Client
from sandpost.model.limits import EngineName
from sandpost.selftest.attacker import Door
from sandpost.selftest.catalogue import Named, catalogue
from sandpost.selftest.host import Look
from sandpost.selftest.runner import Runner
from support import gvisor
from support.lab import lab
from support.logs import records_of
from support.machine import EMULATED
from support.platform import Platform, platform

CASES = catalogue()
SHORT_ENOUGH = {"memory_of_children"}
"""Longer than `selftest --quick` has time for, and tried in ordinary runs all the same, on both versions of control groups."""
QUICK_ON_RUNSC = {
    "another_tenants_key", "child_loops", "descriptors", "devices", "environment", "exit", "heap", "host_files",
    "inherited_descriptors", "inodes", "module_store", "mounts", "other_processes", "output_flood", "proc_secrets", "python_memory", "python_system_calls", "raw_answer",
    "sparse_file", "system_calls",
}  # fmt: skip


def columns() -> Iterator[ParameterSet]:
    """Each case on each engine; that of runsc is short in ordinary runs."""
    for one in CASES:
        if one.case.part != "network":
            short = one.case.quick or one.name in SHORT_ENOUGH
            yield pytest.param(one, "runc", id=one.name, marks=() if short else pytest.mark.long)
            quick = one.name in QUICK_ON_RUNSC
            yield pytest.param(one, "runsc", id=f"{one.name}-runsc", marks=() if quick else pytest.mark.long)


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    gvisor.runsc()
    with platform(pool_size="4") as started:
        yield started


@pytest.fixture(scope="module")
def runners(running: Platform, request: pytest.FixtureRequest) -> Iterator[Callable[[EngineName], Runner]]:
    """For each engine cases as whoever runs `sandpost selftest` as root on the host, but with the host's own defaults as limits."""

    def log(tenant: str) -> list[dict[str, Any]]:
        return records_of(running.host.logs_dir, tenant)

    chosen = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    wanted = {(one["case"].name, one["engine"]) for one in chosen if isinstance(one.get("case"), Named)}
    door = Door(url=f"http://127.0.0.1:{running.port}", key=running.key, context=None)
    # Everything takes several times as long where a processor is emulated.
    slower = 10 if EMULATED else 1
    limits = {"deadline": "10s", "blocked_after": "3s"} if EMULATED else None
    made: dict[EngineName, Runner] = {}
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(url=door.url, key=door.key))

        def get(engine: EngineName) -> Runner:
            if engine not in made:
                cases = [one for one in CASES if (one.name, engine) in wanted]
                made[engine] = stack.enter_context(
                    Runner(
                        door,
                        client,
                        cases,
                        look=Look(running.host),
                        log=log,
                        limits=limits,
                        engine=engine,
                        slower=slower,
                    )
                )
            return made[engine]

        yield get


@pytest.mark.parametrize(("case", "engine"), list(columns()))
def test_a_case_is_withstood(runners: Callable[[EngineName], Runner], case: Named, engine: EngineName) -> None:
    runner = runners(engine)
    verdict = runner.try_case(case)
    neighbour = verdict.neighbour
    if neighbour is not None:
        quiet = runner.quiet
        print(
            f"neighbour p99 {neighbour.p99 * 1000:.1f} ms ({quiet.p99 * 1000:.1f} ms quiet) over {neighbour.calls} calls"
        )
    assert verdict.outcome == "held", verdict.seen


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ["runc", pytest.param("runsc", marks=pytest.mark.long)])
def test_no_case_finds_a_way_where_none_should_be(engine: EngineName) -> None:
    """In a lab, where every address that a case tries is there and listens, and no packet leaves the machine."""
    names = [one.name for one in CASES if one.case.part == "network"]
    with lab() as laboratory, platform(laboratory.host, pool_size="3") as running:
        done = running.command(
            "selftest", "--json", "--engine", engine, *(word for name in names for word in ("--case", name)), timeout=240,
        )  # fmt: skip
        verdicts = json.loads(done.stdout)
    assert [one["name"] for one in verdicts] == names
    assert [one for one in verdicts if one["outcome"] != "held"] == [], json.dumps(verdicts)


def test_every_case_says_what_it_tries_why_and_what_must_be_seen() -> None:
    for one in CASES:
        assert "\nWeaker: " in one.text, one.name
        assert "\nMust: " in one.text, one.name
        assert one.case.title


def test_the_table_of_attacks_names_every_case_and_nothing_that_is_not_there() -> None:
    here = Path(__file__).parent
    text = (here / "README.md").read_text()
    quoted = set(re.findall(r"`([\w./-]+)`", text[text.index("## Resources") :]))
    names = {one.name for one in CASES}
    assert names - quoted == set()
    root = here.parents[1]
    files = {path.name for path in (root / "tests").rglob("test_*.py")}
    strange = {one for one in quoted - names if not (root / one).exists() and one not in files}
    assert strange == set()

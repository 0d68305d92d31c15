"""`sandpost selftest` as an operator runs it: a table, JSON, an exit code, nothing left; and it fails without a wall."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpost.selftest.catalogue import catalogue
from sandpost.selftest.host import Look
from support.lab import lab, until
from support.platform import Platform, platform
from support.taken_away import WALLS, walls_of_this_host
from support.weakened import weakened


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    with platform(pool_size="4") as started:
        yield started


def test_it_shows_a_table_and_leaves_no_tenant(running: Platform) -> None:
    done = running.command("selftest", "--case", "exit", "--case", "smuggling", "--case", "inodes")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["PART", "CASE", "VERDICT", "SEEN", "TIME", "NEIGHBOUR", "P99", "QUIET"]
    assert [line.split()[0] for line in lines[1:4]] == ["resources", "exchange", "exchange"]
    assert lines[-1] == "3 held, 0 broken, 0 could not be tried; on runc"
    assert running.api("GET", "/api/tenants").json["tenants"] == []
    assert [key["label"] for key in running.api("GET", "/api/keys").json["keys"]] == ["SANDPOST_ADMIN_KEY"]


def test_json_has_every_verdict_with_the_neighbours_figures(running: Platform) -> None:
    done = running.command("selftest", "--json", "--case", "callback_twice")
    [verdict] = json.loads(done.stdout)
    assert (verdict["name"], verdict["outcome"], verdict["seen"]) == ("callback_twice", "held", "served")
    assert verdict["engine"] == "runc"
    assert verdict["neighbour"]["calls"] > 0
    assert verdict["neighbour"]["failed"] == 0
    assert verdict["quiet"]["calls"] > verdict["quiet"]["failed"] == 0
    assert verdict["quiet"]["p99"] > 0


def test_a_case_that_is_not_there_is_a_usage_error(running: Platform) -> None:
    done = running.command("selftest", "--case", "nothing")
    assert done.returncode == 2
    assert "there is no case `nothing`" in done.stderr


def test_from_afar_it_says_what_it_could_not_try(running: Platform) -> None:
    done = running.command(
        "selftest", "--url", f"http://127.0.0.1:{running.port}", "--case", "namespaces", "--case", "exit",
        environment={"SANDPOST_KEY": running.key},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it needs a look at the host" in done.stdout
    assert "500 exit (log unseen); host unseen" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 held, 0 broken, 1 could not be tried; on runc"


def test_who_else_is_in_a_sandboxs_namespaces_is_found(running: Platform) -> None:
    assert running.call("alone", "return function (cb) { cb(null, 1) }").status == 200
    [mine] = [record for record in running.records() if record["tenant"] == "alone"]
    folder = Path(f"/proc/{mine['pid']}/ns")
    namespaces = {kind: os.readlink(folder / kind) for kind in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")}
    look = Look(running.host)
    assert look.strangers(namespaces, mine["sandbox_id"]) == []
    with subprocess.Popen(["nsenter", f"--uts={folder}/uts", "sleep", "60"]) as other:
        try:
            assert until(lambda: look.strangers(namespaces, mine["sandbox_id"]) == [f"uts of process {other.pid}"])
        finally:
            other.kill()


@pytest.mark.long
def test_what_is_left_behind_is_found(running: Platform) -> None:
    stray = running.host.path("bundles", "left")
    os.mkdir(stray)
    try:
        done = running.command("selftest", "--case", "exit")
    finally:
        os.rmdir(stray)
    assert done.returncode == 1
    assert "left behind: bundles left" in done.stdout


CONTROL = "callback_twice"
"""A case that every wall here has nothing to do with: it is withstood by a platform that works."""


def test_what_is_taken_away_stands_in_the_code_once() -> None:
    edits = [(edit, edit.text()) for wall in WALLS.values() for edit in wall.edits]
    assert [(edit.file, edit.old) for edit, text in edits if text.count(edit.old) != 1] == []


@pytest.mark.parametrize(
    "wall",
    [pytest.param(one, marks=() if wall.quick else pytest.mark.long) for one, wall in walls_of_this_host().items()],
)
def test_without_a_wall_its_case_fails(wall: str) -> None:
    case, edits, _ = WALLS[wall]
    network = next(one for one in catalogue() if one.name == case).case.part == "network"
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(lab()).host if network else None
        program = stack.enter_context(weakened(*edits))
        running = stack.enter_context(platform(place, program=program, pool_size="3"))
        done = running.command("selftest", "--json", "--case", CONTROL, "--case", case, timeout=180)
        verdicts = {one["name"]: one for one in json.loads(done.stdout)}
    assert {name: one["outcome"] for name, one in verdicts.items()} == {CONTROL: "held", case: "broken"}, json.dumps(
        verdicts
    )
    print(f"{wall}: {verdicts[case]['seen']}")
    assert done.returncode == 1

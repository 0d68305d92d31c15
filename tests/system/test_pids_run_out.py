"""As many processes as may be: who is served goes on, who cannot be is told why, and all is well when there are more.

`pid_max` reached and the limit of a control group give the same answer to a fork (EAGAIN); the group can be our own.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpost.walls.cgroups import mounts
from support.lab import lab
from support.platform import SANDPOST, Platform, platform
from support.waiting import until

COUNT = "let n = 0; return (cb) => cb(null, ++n)"
HELLO = "return (cb) => cb(null, 'hello')"


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group that a limit of processes can be written to."""
    found = mounts.read()
    made = Path(found.controllers.get("pids") or found.unified or "", f"sandpost-test-{os.getpid()}")
    made.mkdir()
    try:
        yield made
    finally:
        until(lambda: not (made / "cgroup.procs").read_text(), "the group to be empty", 30)
        made.rmdir()


@pytest.fixture
def running(group: Path, tmp_path: Path) -> Iterator[Platform]:
    """A platform whose own processes are in the group; sandboxes have groups of theirs."""
    tmp_path.chmod(0o755)
    program = tmp_path / "sandpost"
    program.write_text(f'#!/bin/sh\n[ "$1" != serve ] || echo $$ >{group}/cgroup.procs\nexec {SANDPOST} "$@"\n')
    program.chmod(0o755)
    with lab() as made, platform(made.host, program=str(program), pool_size="2") as found:
        try:
            yield found
        finally:
            (group / "pids.max").write_text("max")


def descriptors(running: Platform) -> int:
    return len(os.listdir(f"/proc/{running.pids('supervisor')[0]}/fd"))


def calls(running: Platform) -> int:
    total: int = running.api("GET", "/api/tenants/settled/usage").json["total"]["calls"]
    return total


def test_who_has_a_sandbox_is_served_and_who_has_none_is_told_what_to_raise(group: Path, running: Platform) -> None:
    assert running.call("settled", COUNT).json == 1
    until(lambda: [one["phase"] for one in running.records()].count("pooled") == 2, "the pool", 30)
    (group / "pids.max").write_text("1")
    assert running.call("settled", COUNT).json == 2
    # What the pool has is given; then nobody can be.
    for tenant in ("first", "second"):
        assert running.call(tenant, HELLO).json == "hello"
    for _ in range(3):
        answer = running.call("late", HELLO)
        assert (answer.status, answer.json["reason"], answer.json["fault"]) == (503, "unavailable", "platform")
        assert answer.json["retryable"]
        assert answer.headers["retry-after"]
        assert f"pids.max of the control group /{group.name}): raise it there" in answer.json["message"]
    assert running.call("settled", COUNT).json == 3
    # A sandbox that ends is removed, and one that could not be started, too: nothing of them waits for better times.
    os.kill(next(one["pid"] for one in running.records() if one["tenant"] == "first"), signal.SIGKILL)
    kept = {("assigned", "second"), ("assigned", "settled")}
    until(lambda: {(one["phase"], one["tenant"]) for one in running.records()} == kept, "removals", 30)
    (group / "pids.max").write_text("max")
    assert running.call("late", HELLO).json == "hello"
    assert running.call("settled", COUNT).json == 4


def test_a_start_with_too_few_says_so_and_nothing_else(group: Path, tmp_path: Path) -> None:
    (group / "pids.max").write_text("20")
    command = f"echo $$ >{group}/cgroup.procs; exec {SANDPOST} serve"
    environment = {"PATH": os.environ["PATH"], "SANDPOST_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(
        ["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    (told,) = (done.stdout + done.stderr).splitlines()
    assert f"of 20 processes and threads are there (pids.max of the control group /{group.name})" in told
    assert not (tmp_path / "state").exists()


@pytest.mark.long
def test_parts_that_end_meanwhile_are_started_as_soon_as_they_can_be(group: Path, running: Platform) -> None:
    assert running.call("settled", COUNT).json == 1
    until(lambda: len(running.records()) == 3 and calls(running) == 1, "the pool, and usage of the call", 30)
    before = descriptors(running)
    (group / "pids.max").write_text("1")
    lost = [running.pids(part)[0] for part in ("controller", "api", "collector", "egress", "proxy")]
    for pid in lost:
        os.kill(pid, signal.SIGKILL)
    until(lambda: running.output().count("part cannot be started") >= 2 * len(lost), "tries to start them", 30)
    assert f"pids.max of the control group /{group.name}" in running.output()
    # The other worker serves who has a sandbox, and says what is missing.
    assert running.call("settled", COUNT).json == 2
    assert running.call("late", HELLO).status == 503
    assert running.process is not None
    assert running.process.poll() is None
    # Pipes of starts that failed are closed; those to the parts that ended are gone.
    assert descriptors(running) <= before
    (group / "pids.max").write_text("max")
    until(lambda: running.command("status").returncode == 0, "every part", 30)
    assert running.call("settled", COUNT).json == 3
    assert running.call("late", HELLO).json == "hello"
    until(lambda: calls(running) == 3, "usage of every call", 30)


def test_a_firewall_that_cannot_be_repaired_is_told_and_repaired_as_soon_as_it_can_be(
    group: Path, running: Platform
) -> None:
    assert running.call("settled", COUNT).json == 1
    (group / "pids.max").write_text("1")
    table = running.host.nft_table
    assert running.place is not None
    running.place.command("nft", "flush", "map", "inet", table, "tenants")
    until(lambda: "the firewall could not be looked at or repaired" in running.output(), "what is wrong to be told", 30)
    assert "`nft` cannot be run: " in running.output()
    (group / "pids.max").write_text("max")
    until(lambda: "is repaired" in running.output(), "the repair", 5)
    listing = json.loads(running.place.command("nft", "-j", "list", "map", "inet", table, "tenants"))
    assert len(listing["nftables"][-1]["map"]["elem"]) == 1

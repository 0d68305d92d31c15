"""Many sandboxes, made and ended one after another, leave nothing; a thousand new tenants meet a bounded queue."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandpost.bus.local_writer import OPEN_FILES
from sandpost.selftest.host import Look
from support.memory import own
from support.platform import Platform, platform

HELLO = 'return function (cb) { cb(null, "Hello, world!") }'


PARTS = ("supervisor", "controller", "proxy", "api", "collector", "egress")
DESCRIPTORS_OF_ONE = 8
"""What a sandbox that lives costs our processes; the pool may have one more or less than before."""


def memory(running: Platform) -> int:
    """All our processes' own bytes, each page counted once."""
    return sum(own(pid) for part in PARTS for pid in running.pids(part))


def descriptors(running: Platform) -> int:
    """Open descriptors of all our processes. Files of log streams stay open up to a bound, and count no further."""
    folders = [Path(f"/proc/{pid}/fd") for part in PARTS for pid in running.pids(part)]
    names = [os.readlink(one) for folder in folders for one in folder.iterdir() if one.is_symlink()]
    streams = sum(name.startswith(running.host.logs_dir) for name in names)
    assert streams <= OPEN_FILES + 1
    return len(names) - streams


def end_all(running: Platform, tenants: list[str]) -> None:
    """Suspend the tenants, which ends their sandboxes, and wait until these are gone."""
    for tenant in tenants:
        assert running.api("DELETE", f"/api/tenants/{tenant}").status in {200, 204, 404}
    deadline = time.monotonic() + 30
    while any(record.get("tenant") in tenants for record in running.records()):
        assert time.monotonic() < deadline, "sandboxes of removed tenants live on"
        time.sleep(0.05)


def settle(running: Platform) -> None:
    """Wait until the pool is full and nothing is being started or removed."""
    deadline = time.monotonic() + 30
    while True:
        seen = running.api("GET", "/api/status").json["controller"]
        if seen["pool"] == seen["pool_target"] and not seen["starting"] and not Look(running.host).strays():
            return
        assert time.monotonic() < deadline, seen
        time.sleep(0.05)


@pytest.mark.parametrize("rounds", [3, pytest.param(25, marks=pytest.mark.long)])
def test_sandboxes_made_and_ended_leave_nothing(rounds: int) -> None:
    with platform(pool_size="2") as running:
        settled: tuple[int, int] | None = None
        for turn in range(rounds):
            names = [f"leak-{turn}-{n}" for n in range(20)]
            for name in names:
                assert running.api("PUT", f"/api/tenants/{name}", {}).status in {200, 201}
                assert running.call(name, HELLO).status == 200
            end_all(running, names)
            settle(running)
            if turn == min(1, rounds - 1):
                settled = memory(running), descriptors(running)
        assert settled is not None
        # Processes, groups, interfaces, mounts, firewall entries, folders and files of what is gone.
        assert Look(running.host).strays() == []
        grown, opened = memory(running) - settled[0], descriptors(running) - settled[1]
        assert grown < 16 << 20, f"memory grew by {grown} bytes"
        assert opened <= 2 * DESCRIPTORS_OF_ONE, f"{opened} more descriptors are open"


@pytest.mark.long
def test_a_thousand_new_tenants_are_served_or_told_to_come_back() -> None:
    with platform(pool_size="2", queue="16", limits_idle="20s") as running:
        neighbour = running.call("neighbour", HELLO)
        assert neighbour.status == 200
        with ThreadPoolExecutor(64) as threads:
            answers = list(threads.map(lambda n: running.call(f"crowd-{n}", HELLO), range(1000)))
        statuses = {answer.status for answer in answers}
        assert statuses <= {200, 503}
        refused = [answer for answer in answers if answer.status == 503]
        assert refused, "64 at once do not fit a queue of 16"
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert all(answer.json["reason"] == "no_room" for answer in refused)
        assert running.call("neighbour", HELLO).status == 200

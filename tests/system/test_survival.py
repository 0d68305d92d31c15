"""`kill -9` of each process under load, renewal under load, and a stop that leaves nothing."""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandpost import __version__
from support.http import request
from support.lab import until
from support.load import Load
from support.machine import traces
from support.platform import Platform, platform
from support.weakened import weakened

FILL = b"return function (cb) { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)) }"
HANG = b"return function (cb) {}"
PARTS = ("controller", "proxy", "api", "collector", "egress")
VERSION = f'__version__ = "{__version__}"'
COUNT = b"let n = 0; return function (cb) { cb(null, ++n) }"


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    with platform(pool_size="2", workers="2") as started:
        yield started


def target(platform: Platform, tenant: str) -> str:
    return f"/{tenant}?key={platform.key}"


def releases(platform: Platform) -> set[str]:
    """Of which releases the parts are that the supervisor has written down."""
    children: list[dict[str, str]] = json.loads(Path(platform.host.path("children.json")).read_bytes())
    return {one["release"] for one in children}


def wait_until_healthy(platform: Platform, within: float = 15) -> None:
    deadline = time.monotonic() + within
    answer = request(platform.port, "GET", "/health")
    while answer.status != 200:
        assert time.monotonic() < deadline, answer.body
        time.sleep(0.05)
        answer = request(platform.port, "GET", "/health")


def wait_for_calls(platform: Platform, tenant: str, calls: int) -> None:
    deadline = time.monotonic() + 20
    path = f"/api/tenants/{tenant}/sandboxes"
    while [one["in_flight"] for one in platform.api("GET", path).json["sandboxes"]] != [calls]:
        assert time.monotonic() < deadline, platform.api("GET", path).body
        time.sleep(0.1)


@pytest.mark.parametrize("part", ["controller", "api", "collector", "egress"])
def test_killing_what_is_beside_the_data_path_loses_no_warm_call(running: Platform, part: str) -> None:
    tenant = f"kill-{part}"
    calls = running.call(tenant, COUNT).json
    with Load(running.port, target(running, tenant), COUNT) as load:
        time.sleep(0.5)
        [victim] = running.pids(part)
        os.kill(victim, signal.SIGKILL)
        time.sleep(3)
    assert load.tally.bad == {}
    calls += load.tally.outcomes["200"]
    # Every call ran once, in the one sandbox of this tenant, which lives on.
    assert running.call(tenant, COUNT).json == calls + 1
    wait_until_healthy(running)
    assert running.pids(part) not in ([], [victim])
    assert running.call(f"{tenant}-new", COUNT).status == 200


def test_a_sandbox_that_met_its_memory_while_no_controller_was_there_ended_by_memory(running: Platform) -> None:
    assert running.call("fill-alone", COUNT).status == 200
    [controller], [supervisor] = running.pids("controller"), running.pids("supervisor")
    [mine] = [record["pid"] for record in running.records() if record["tenant"] == "fill-alone"]
    # It starts no other one meanwhile, and reaps nobody.
    os.kill(supervisor, signal.SIGSTOP)
    try:
        os.kill(controller, signal.SIGKILL)
        with ThreadPoolExecutor() as threads:
            call = threads.submit(running.call, "fill-alone", FILL)
            assert until(lambda: " (zombie)" in Path(f"/proc/{mine}/status").read_text(), 20)
            os.kill(supervisor, signal.SIGCONT)
            answer = call.result(timeout=30)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert (answer.status, answer.json["reason"], answer.json["setting"]) == (500, "memory", "limits.memory")


def test_calls_of_all_workers_are_neighbours_of_the_call_that_ends_their_sandbox(running: Platform) -> None:
    assert running.call("exiting", COUNT).status == 200
    with ThreadPoolExecutor(16) as threads:
        # A connection each: with two workers not all come to one (but once in 65,536 runs).
        neighbours = [threads.submit(running.call, "exiting", HANG) for _ in range(16)]
        wait_for_calls(running, "exiting", 16)
        guilty = running.call("exiting", b"return function (cb) { process.exit(3) }")
        assert (guilty.status, guilty.json["reason"]) == (500, "exit")
        told = [(call.result(timeout=30).status, call.result().json["reason"]) for call in neighbours]
    assert told == [(502, "neighbour_call")] * 16


def test_killing_the_supervisor_ends_nothing_and_the_next_start_adopts_all() -> None:
    with platform(pool_size="2", workers="2") as mine:
        calls = mine.call("orphan", COUNT).json
        parts = {part: mine.pids(part) for part in ("controller", "proxy", "api", "collector", "egress")}
        with Load(mine.port, target(mine, "orphan"), COUNT, keep_alive=False) as load:
            time.sleep(0.3)
            assert mine.process is not None
            mine.process.kill()
            mine.process.wait()
            time.sleep(0.5)
            mine.start()
            time.sleep(0.5)
        assert load.tally.bad == {}
        assert mine.call("orphan", COUNT).json == calls + load.tally.outcomes["200"] + 1
        assert {part: mine.pids(part) for part in parts} == parts


def test_the_next_start_brings_new_settings_to_adopted_parts() -> None:
    program = f"return function (cb) {{ cb(null, 1) }} // {'-' * 200}"
    with platform(pool_size="1", workers="1") as mine:
        assert mine.call("before", program).status == 200
        parts = mine.pids("proxy")
        assert mine.process is not None
        mine.process.kill()
        mine.process.wait()
        mine.settings["limits_code"] = "100"
        mine.start()
        assert mine.pids("proxy") == parts
        # The workers answered all the while: that they do so does not say that the supervisor is there.
        assert until(lambda: mine.call("after", program).status == 413, 10)


def test_killing_a_proxy_worker_costs_its_own_connections_alone(running: Platform) -> None:
    running.call("kill-proxy", COUNT)
    with (
        Load(running.port, target(running, "kill-proxy"), COUNT) as kept,
        Load(running.port, target(running, "kill-proxy"), COUNT, keep_alive=False) as fresh,
    ):
        time.sleep(0.5)
        os.kill(running.pids("proxy")[0], signal.SIGKILL)
        time.sleep(3)
    # A thread has one call in flight: no more than that can be lost, and nothing waits over a second.
    assert sum(kept.tally.bad.values()) <= 4
    assert sum(fresh.tally.bad.values()) <= 4
    assert max(kept.tally.slowest, fresh.tally.slowest) < 1.0
    wait_until_healthy(running)
    ran = running.call("kill-proxy", COUNT).json - 2
    answered = kept.tally.outcomes["200"] + fresh.tally.outcomes["200"]
    lost = sum(kept.tally.bad.values()) + sum(fresh.tally.bad.values())
    assert answered <= ran <= answered + lost, "a call ran twice"


def test_a_renewal_under_load_fails_no_call_and_keeps_sandboxes(running: Platform) -> None:
    calls = running.call("renewal", COUNT).json
    before = {part: running.pids(part) for part in ("controller", "proxy", "api", "collector", "egress")}
    with (
        Load(running.port, target(running, "renewal"), COUNT) as kept,
        Load(running.port, target(running, "renewal"), COUNT, keep_alive=False) as fresh,
    ):
        time.sleep(0.3)
        done = running.command("restart", timeout=90)
        time.sleep(0.3)
    assert done.returncode == 0, done.stderr
    assert kept.tally.bad == fresh.tally.bad == {}
    total = calls + kept.tally.outcomes["200"] + fresh.tally.outcomes["200"]
    assert running.call("renewal", COUNT).json == total + 1
    for part, pids in before.items():
        assert not set(pids) & set(running.pids(part)), f"{part} was not renewed"


def test_a_new_release_takes_over_under_load_and_loses_no_call() -> None:
    """As docs/operation.md says: new files in the place of the old ones, the supervisor killed, a start."""
    with weakened() as program, platform(program=program, pool_size="2") as mine:
        calls = mine.call("upgraded", COUNT).json
        [record] = [one for one in mine.records() if one["tenant"] == "upgraded"]
        old, parts = releases(mine), {part: mine.pids(part) for part in PARTS}
        assert len(old) == 1
        with (
            Load(mine.port, target(mine, "upgraded"), COUNT) as kept,
            Load(mine.port, target(mine, "upgraded"), COUNT, keep_alive=False) as fresh,
        ):
            time.sleep(0.3)
            for path in Path(program).parents[2].glob("src/sandpost/**/*.py"):
                # As a checkout does it: another file of that name, with what else it says.
                text = path.read_text().replace(VERSION, '__version__ = "0.1.1"')
                path.unlink()
                path.write_text(text)
            assert mine.process is not None
            mine.process.kill()
            mine.process.wait()
            mine.start()
            assert until(lambda: not any(set(pids) & set(mine.pids(part)) for part, pids in parts.items()), 60)
            assert until(lambda: request(mine.port, "GET", "/health").status == 200, 30)
            time.sleep(0.3)
        assert kept.tally.bad == fresh.tally.bad == {}
        # The program numbers its calls: none was lost, none ran twice, and it is the same one.
        total = calls + kept.tally.outcomes["200"] + fresh.tally.outcomes["200"]
        assert mine.call("upgraded", COUNT).json == total + 1
        assert record["pid"] in [one["pid"] for one in mine.records() if one["tenant"] == "upgraded"]
        [new] = releases(mine)
        assert new.startswith("0.1.1+")
        assert {new} != old


def test_a_second_start_of_the_same_state_folder_says_so(running: Platform) -> None:
    done = running.command("serve")
    assert done.returncode == 3
    assert "running" in done.stdout + done.stderr


def test_a_stop_leaves_nothing_and_a_second_start_is_quick() -> None:
    with platform(pool_size="2") as mine:
        host = mine.host
        assert mine.call("acme", COUNT).json == 1
        assert mine.stop() == 0
        assert not (left := traces(host)), f"left behind: {left}"
        began = time.monotonic()
        mine.start()
        ready = time.monotonic() - began
        assert mine.call("acme", COUNT).json == 1
    assert ready < 30, "ready within 2 s is the goal; this bound only finds a start that builds everything anew"


def test_two_installations_do_not_meet(running: Platform) -> None:
    with platform(pool_size="1") as other:
        assert other.host.instance != running.host.instance
        program = "return function (cb) { cb(null, 1) }"
        assert running.call("acme", program).status == other.call("acme", program).status == 200
        assert request(running.port, "POST", f"/acme?key={other.key}", program).status == 403
    assert running.call("acme", program).status == 200

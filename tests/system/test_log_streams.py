"""The talk's demonstration: a developer sees with `curl`, in real time, what runs on the platform prints."""

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

from support.platform import Platform, platform

HI = 'return function (cb) { console.log("hi", {n: 1}); cb(null, 1) }'
NUMBERED = "return function (context, cb) { console.log('line ' + context.data.n); cb(null, 1) }"


@contextlib.contextmanager
def curl(running: Platform, path: str, *arguments: str) -> Iterator[Any]:
    """Read a stream with real curl, as the operator; yields its lines."""
    url = f"http://127.0.0.1:{running.port}{path}{'&' if '?' in path else '?'}key={running.key}"
    process = running.there(lambda: subprocess.Popen(["curl", "-sSN", *arguments, url], stdout=subprocess.PIPE))
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_talks_demonstration(running: Platform) -> None:
    with curl(running, "/logs/tenant/demo?offset=0&f.sandbox=true") as lines:
        answer = running.call("demo", HI)
        assert answer.json == 1
        raw = lines.readline()
        record = json.loads(raw)
        assert re.search(rb',"offset":\d+}\n$', raw)
        assert (record["name"], record["level"], record["msg"], record["v"]) == ("sandpost", 30, "hi { n: 1 }", 0)
        assert (record["container"], record["sandbox"]) == ("demo", True)
        assert {"hostname", "pid", "time", "req_id", "sandbox_id", "offset"} <= record.keys()
        # As it comes, call after call.
        for number in range(10):
            running.call("demo", NUMBERED, f"n={number}")
            seen = json.loads(lines.readline())
            assert seen["msg"] == f"line {number}"
            assert seen["offset"] > record["offset"]
            record = seen


def test_a_developer_sees_beside_what_he_prints_what_becomes_of_his_calls(running: Platform) -> None:
    with curl(running, "/logs/tenant/seen?offset=0&max=4") as lines:
        running.call("seen", HI)
        records = [json.loads(line) for line in lines]
    (req_id,) = {record["req_id"] for record in records}
    assert sorted(record["msg"].partition(req_id)[0] for record in records) == [
        "finished webtask request ", "hi { n: 1 }", "new webtask request ", "webtask container assigned"
    ]  # fmt: skip


def test_what_one_asks_for_is_what_passes_at_the_listener(running: Platform) -> None:
    for number in range(6):
        running.call("asked", NUMBERED, f"n={number}")
    with curl(running, "/logs/tenant/asked?offset=0&f.sandbox=true&max=6") as lines:
        assert [json.loads(line)["msg"] for line in lines] == [f"line {number}" for number in range(6)]
    with curl(running, "/logs/tenant/asked?offset=0&follow=false&f.sandbox=true&f.msg=!line+%5B0-4%5D") as lines:
        assert [json.loads(line).get("end", "line") for line in lines] == ["line", "told"]
    told = running.command("logs", "asked", "-n", "100", "--grep", "^line [45]")
    assert [json.loads(line)["msg"] for line in told.stdout.splitlines()] == ["line 4", "line 5"], told.stderr


def test_a_follower_outlives_a_killed_api_and_a_killed_collector() -> None:
    with platform() as running:
        environment = running.environment()
        command = [running.program, "logs", "followed", "-f", "--grep", "^line"]
        process = running.there(
            lambda: subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            seen = []
            for number in range(12):
                running.call("followed", NUMBERED, f"n={number}")
                seen.append(json.loads(process.stdout.readline())["msg"])
                if number in (3, 7):
                    (victim,) = running.pids("api" if number == 3 else "collector")
                    os.kill(victim, signal.SIGKILL)
            assert seen == [f"line {number}" for number in range(12)]
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()

"""What the platform itself writes: a tenant reads the life of his sandboxes and calls, the operator all else."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandpost.model.names import SYSTEM
from support.http import request
from support.logs import records_of, until_said
from support.platform import Platform, platform
from support.waiting import until

HELLO = 'return function (cb) { console.log("inside"); cb(null, 1) }'


def records(running: Platform, stream: str, enough: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """Wait until a stream has enough, and return it."""
    deadline = time.monotonic() + 10
    while not enough(found := records_of(running.host.logs_dir, stream)):
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def texts(found: list[dict[str, Any]]) -> list[str]:
    return [record["msg"] for record in found]


def test_a_tenant_reads_the_life_of_his_sandbox_and_of_each_call(running: Platform) -> None:
    answer = running.call("life", HELLO)
    assert answer.status == 200
    found = records(running, "life", lambda found: len(found) == 4)
    by_text = {re.sub("[0-9a-f]{16}", "ID", re.sub(r"\d+ms", "Nms", record["msg"])): record for record in found}
    assert set(by_text) == {
        "webtask container assigned", "new webtask request ID", "inside", "finished webtask request ID with HTTP 200 in Nms"
    }  # fmt: skip
    assert len({record["req_id"] for record in found}) == 1
    assert {record["container"] for record in found} == {"life"}
    assert [record["msg"] for record in found if record.get("sandbox")] == ["inside"]
    sandboxes = {record["sandbox_id"] for text, record in by_text.items() if "new" not in text}
    assert len(sandboxes) == 1
    assert running.call("life", "return function (cb) { process.exit(3) }").status == 500
    found = records(running, "life", lambda found: "webtask container recycled" in texts(found))
    (recycled,) = [record for record in found if record["msg"] == "webtask container recycled"]
    assert (recycled["end"], recycled["sandbox_id"]) == ("exit", *sandboxes)
    assert until_said(running.host.logs_dir, "life", "with HTTP 500")["status"] == 500


def test_a_call_that_is_refused_is_told_to_whom_it_concerns(running: Platform) -> None:
    running.set_tenant("narrow", limits={"body": 100})
    hash_ = running.call("narrow", "return function (context, cb) { cb(null, 1) }").headers["x-sandpost-code"]
    refused = running.api("POST", f"/narrow?webtask_code={hash_}", "x" * 1000)
    assert refused.status == 413
    told = until_said(running.host.logs_dir, "narrow", "with HTTP 413")
    assert (told["req_id"], told["reason"]) == (refused.json["req_id"], refused.json["reason"])
    stranger = running.there(lambda: request(running.port, "POST", "/narrow?key=sp_00000000_nobodys", HELLO))
    assert stranger.status == 403
    told = until_said(running.host.logs_dir, SYSTEM, "with HTTP 403")
    assert told["req_id"] == stranger.json["req_id"]
    assert "container" not in told
    assert not any("403" in text for text in texts(records_of(running.host.logs_dir, "narrow")))


def test_the_operator_reads_what_the_parts_do(tmp_path: Path) -> None:
    settings = tmp_path / "sandpost.toml"
    settings.write_text("")
    with platform(config=str(settings), pool_size="1") as running:
        assert running.call("acme", HELLO).status == 200
        for text in ("ready", "the controller serves", "proxy started", "api ready", "collector ready", "egress ready"):
            until_said(running.host.logs_dir, SYSTEM, text)
        (victim,) = running.pids("api")
        os.kill(victim, signal.SIGKILL)
        ended = until_said(running.host.logs_dir, SYSTEM, "part ended")
        assert (ended["component"], ended["part"], ended["level"]) == ("supervisor", "api", 50)
        settings.write_text("[logs]\nrequests = 3\n")
        assert running.process is not None
        os.kill(running.process.pid, signal.SIGHUP)
        until_said(running.host.logs_dir, SYSTEM, "settings taken up")
        # Nothing of a tenant's own, and nothing that is no record of bunyan's.
        found = records_of(running.host.logs_dir, SYSTEM)
        assert all({"name", "hostname", "pid", "level", "time", "msg", "v", "component"} <= one.keys() for one in found)
        assert not any(one.get("sandbox") or "inside" in one["msg"] for one in found)
        until(lambda: running.command("status").returncode == 0, "every part", 30)
        shown = running.api("GET", "/logs/system?offset=0&max=1&timeout=1000")
        assert json.loads(shown.body.splitlines()[0])["component"] in {one["component"] for one in found}


def test_what_is_written_stays_whole_while_parts_are_killed() -> None:
    with platform(pool_size="1") as running:
        for part in ("collector", "controller", "api", "egress"):
            assert running.call("acme", HELLO).status == 200
            (victim,) = running.pids(part)
            os.kill(victim, signal.SIGKILL)
            # What a collector had in hand as it was killed may be gone; what comes afterwards waits for the next one.
            answer = running.call("acme", HELLO)
            assert answer.status == 200
            until_said(running.host.logs_dir, "acme", f"finished webtask request {answer.headers['x-sandpost-req']}")
        for number in range(3):
            assert running.call(f"t{number}", HELLO).status == 200
            until_said(running.host.logs_dir, f"t{number}", "webtask container assigned")
        found = records_of(running.host.logs_dir, SYSTEM)
        assert {record["part"] for record in found if record["msg"] == "part ended"} >= {"collector", "controller"}


def test_calls_beyond_the_rate_are_summed_so_that_every_call_is_in_the_log(running: Platform) -> None:
    with platform(pool_size="1", logs_requests="5") as few:
        calls = 60
        for _ in range(calls):
            assert few.call("busy", HELLO).status == 200

        def told(found: list[dict[str, Any]]) -> int:
            apart = sum(text.startswith("finished webtask request") for text in texts(found))
            return apart + sum(int(record.get("requests", 0)) for record in found)

        found = records(few, "busy", lambda found: told(found) == calls)
        assert any("requests" in record for record in found)
        begun = [text for text in texts(found) if text.startswith("new webtask request")]
        ended = [text for text in texts(found) if text.startswith("finished webtask request")]
        assert len(begun) == len(ended) >= 5


def test_with_a_rate_of_nothing_calls_leave_no_record() -> None:
    with platform(pool_size="1", logs_requests="0") as silent:
        for _ in range(5):
            assert silent.call("acme", HELLO).status == 200
        until_said(silent.host.logs_dir, "acme", "inside")
        time.sleep(1.2)
        assert sorted(set(texts(records_of(silent.host.logs_dir, "acme")))) == ["inside", "webtask container assigned"]

"""The whole platform, whose records go out too: by OTLP to a receiver, and as lines on stdout."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from support.http import request
from support.otlp import attributes, receiver
from support.platform import Platform, free_port, platform
from support.waiting import until

HI = 'return function (cb) { console.log("hi"); cb(null, 1) }'
SECRET = "s3cret-of-otlp-5"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def problems(running: Platform) -> list[str]:
    found: list[str] = running.api("GET", "/api/status").json["problems"]
    return found


def figure(running: Platform, name: str, result: str) -> float:
    answer = request(int(running.settings["metrics_listen"].rpartition(":")[2]), "GET", "/metrics", timeout=5)
    found = re.search(rf'^{name}{{[^}}]*result="{result}"[^}}]*}} (\S+)$'.encode(), answer.body, re.MULTILINE)
    return float(found[1]) if found else -1


@pytest.mark.long
def test_a_receiver_that_is_away_costs_no_call_is_named_and_gets_all_once_it_comes(tmp_path: Path) -> None:
    (tmp_path / "headers").write_text(f"x-api-key: {SECRET}\n")
    (tmp_path / "headers").chmod(0o600)
    port = free_port()
    with platform(
        None, pool_size="1", workers="1", metrics_listen=f"127.0.0.1:{free_port()}",
        logs_otlp_endpoint=f"http://127.0.0.1:{port}/v1/logs", logs_otlp_headers_file=str(tmp_path / "headers"),
    ) as running:  # fmt: skip
        for _ in range(3):
            assert running.call("acme", HI).status == 200
        until(
            lambda: any("logs.otlp" in one and "does not answer" in one for one in problems(running)),
            "its name",
            within=30,
        )
        assert request(running.port, "GET", "/health", timeout=5).status == 200
        with receiver(port) as there:
            headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            assert running.call("traced", HI, headers=headers).status == 200
            until(lambda: there.bodies().count("hi") == 4, "the lines", within=40)
            until(lambda: "collector ready" in there.bodies(), "the parts' own records", within=10)
            until(lambda: not problems(running), "that all is well", within=10)
            said = {record.body.string_value: record for record in there.records() if record.trace_id.hex() == TRACE}
            assert "hi" in said
            assert {attributes(record)["container"] for record in said.values()} == {"traced"}
            assert any(text.startswith("finished webtask request") for text in said)
            assert {one["x-api-key"] for one in there.headers} == {SECRET}
            until(
                lambda: figure(running, "sandpost_otlp_records_total", "sent") >= len(there.records()) > 0, "the figure"
            )
            assert figure(running, "sandpost_otlp_records_total", "lost") == 0
        kept = Path(running.host.path("host.json")).read_text()
        assert SECRET not in running.command("config", "show").stdout + kept + running.output()
        for part in ("collector", "api", "supervisor"):
            for pid in running.pids(part):
                assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_every_record_is_a_line_on_stdout() -> None:
    with platform(None, pool_size="1", workers="1", logs_stdout="on") as running:
        assert running.call("acme", HI).status == 200

        def printed() -> list[dict[str, Any]]:
            return [json.loads(line) for line in running.output().splitlines() if line.startswith('{"name"')]

        until(lambda: any(one["msg"] == "hi" and one.get("container") == "acme" for one in printed()), "the line")
        until(lambda: any(one["msg"] == "collector ready" for one in printed()), "the parts' own")

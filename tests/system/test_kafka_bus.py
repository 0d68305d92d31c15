"""The whole platform on a real Kafka: records get there and back, and a Kafka that is away costs no call and no line."""

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.http import request
from support.kafka import Cluster, Secure, authority
from support.platform import SANDPOST, Platform, free_port, platform
from support.waiting import until

HI = 'return function (cb) { console.log("hi"); cb(null, 1) }'
NUMBERED = b"let n = 0; return function (cb) { console.log('n ' + n); cb(null, n++) }"
PASSWORD = "s3cret-of-kafka-7"


@contextlib.contextmanager
def on_kafka(address: str, **more: str) -> Iterator[Platform]:
    settings = {"pool_size": "1", "workers": "1", "logs_bus": "kafka", "logs_kafka_brokers": address, **more}
    with platform(None, program=SANDPOST, **settings) as running:
        yield running


def records(running: Platform, stream: str, query: str = "") -> list[dict[str, Any]]:
    """Return what is kept of a stream now."""
    answer = running.api("GET", f"/logs/{stream}?offset=0&follow=false{query}")
    assert answer.status == 200, answer.body
    found: list[dict[str, Any]] = [json.loads(line) for line in answer.body.splitlines()]
    assert found.pop()["end"] == "told"
    return found


def texts(running: Platform, stream: str, query: str = "") -> list[str]:
    return [record["msg"] for record in records(running, stream, query)]


def logs(running: Platform) -> str:
    """Return what `/health` says of the logs; all else is well whatever they are."""
    answer = request(running.port, "GET", "/health")
    assert (answer.status, answer.json["status"]) == (200, "ok")
    said: str = answer.json["components"]["logs"]
    return said


def up(running: Platform) -> float:
    """Return the figure of the log bus."""
    answer = request(int(running.settings["metrics_listen"].rpartition(":")[2]), "GET", "/metrics")
    found = re.search(rb"^sandpost_log_bus_up{[^}]*} (\S+)$", answer.body, re.MULTILINE)
    return float(found[1]) if found else -1


def test_records_get_to_a_kafka_and_back_by_tls_and_sasl_and_its_password_is_nowhere(tmp_path: Path) -> None:
    certificate, both = authority(tmp_path)
    (tmp_path / "password").write_text(PASSWORD + "\n")
    (tmp_path / "password").chmod(0o600)
    with (
        Cluster(tmp_path, secure=Secure(both, "sandpost", PASSWORD)) as cluster,
        on_kafka(
            cluster.address, logs_kafka_tls="on", logs_kafka_tls_ca=str(certificate), logs_kafka_sasl="SCRAM-SHA-512",
            logs_kafka_user="sandpost", logs_kafka_password_file=str(tmp_path / "password"),
        ) as running,
    ):  # fmt: skip
        assert running.call("acme", HI).status == 200
        until(lambda: texts(running, "tenant/acme", "&f.sandbox=true") == ["hi"], "the line", within=30)
        until(lambda: "collector ready" in texts(running, "system"), "records of the parts")
        assert logs(running) == "ok"
        # Nothing of it is kept here.
        assert os.listdir(running.host.logs_dir) == []
        shown = running.command("config", "show").stdout
        kept = Path(running.host.path("host.json")).read_text()
        said = running.output() + json.dumps(records(running, "system"))
        assert PASSWORD not in shown + kept + said
        for part in ("collector", "api"):
            (pid,) = running.pids(part)
            assert PASSWORD.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_a_kafka_that_is_not_there_holds_no_start_up_is_named_and_gets_all_once_it_comes(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        (broker,) = cluster.brokers
        broker.kill()
        with on_kafka(cluster.address, metrics_listen=f"127.0.0.1:{free_port()}") as running:
            assert running.call("acme", HI).status == 200
            until(lambda: logs(running) == "cannot be written", "/health names it", within=20)
            until(lambda: up(running) == 0, "the figure")
            (problem,) = running.api("GET", "/api/status").json["problems"]
            assert problem.startswith("logs: Kafka does not answer: localhost:")
            assert running.call("acme", HI).status == 200
            broker.start()
            until(lambda: logs(running) == "ok", "/health", within=30)
            until(lambda: up(running) == 1, "the figure")
            until(lambda: texts(running, "tenant/acme", "&f.sandbox=true") == ["hi"] * 2, "both lines", within=20)
            assert running.api("GET", "/api/status").json["problems"] == []

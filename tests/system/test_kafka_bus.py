"""The whole platform on a real Kafka: records get there and back, and a Kafka that is away costs no call and no line."""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

from support.collector import lines_told
from support.followed import NUMBERED, followed, followed_numbers, kill, records, texts
from support.http import request
from support.kafka import Cluster, Secure, authority
from support.load import Load
from support.platform import SANDPOST, Platform, free_port, platform
from support.waiting import until

HI = 'return function (cb) { console.log("hi"); cb(null, 1) }'
PASSWORD = "s3cret-of-kafka-7"


@contextlib.contextmanager
def on_kafka(address: str, **more: str) -> Iterator[Platform]:
    settings = {"pool_size": "1", "workers": "1", "logs_bus": "kafka", "logs_kafka_brokers": address, **more}
    with platform(None, program=SANDPOST, **settings) as running:
        yield running


def logs(running: Platform) -> str:
    """Return what `/health` says of the logs; all else is well whatever they are."""
    answer = request(running.port, "GET", "/health", timeout=5)
    assert (answer.status, answer.json["status"]) == (200, "ok")
    said: str = answer.json["components"]["logs"]
    return said


def up(running: Platform) -> float:
    """Return the figure of the log bus."""
    answer = request(int(running.settings["metrics_listen"].rpartition(":")[2]), "GET", "/metrics", timeout=5)
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
        until(lambda: logs(running) == "ok", "the bus to be well", within=30)
        # Nothing of it is kept here.
        assert os.listdir(running.host.logs_dir) == []
        shown = running.command("config", "show").stdout
        kept = Path(running.host.path("host.json")).read_text()
        said = running.output() + json.dumps(records(running, "system"))
        assert PASSWORD not in shown + kept + said
        for part in ("collector", "api"):
            (pid,) = running.pids(part)
            assert PASSWORD.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.long
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


def test_a_sighup_changes_nothing_of_which_bus_it_is_and_says_so(tmp_path: Path) -> None:
    settings = tmp_path / "sandpost.toml"

    def write(bus: str, brokers: str, spool: str) -> None:
        settings.write_text(
            f'pool_size = 1\nworkers = 1\n[logs]\nbus = "{bus}"\nspool = "{spool}"\n'
            f'[logs.kafka]\nbrokers = "{brokers}"\npartitions = 3\n'
        )

    def lines(running: Platform) -> list[str]:
        return texts(running, "tenant/acme", "&f.sandbox=true")

    with Cluster(tmp_path) as cluster:
        write("kafka", cluster.address, "64MiB")
        with platform(None, program=SANDPOST, config=str(settings)) as running:
            assert running.process is not None
            for turn, (bus, brokers, named) in enumerate(
                (("kafka", "localhost:1", "logs.kafka.brokers"), ("local", "localhost:1", "logs.bus")), 1
            ):
                said = running.output().count("settings that only a stop and a start take up")
                write(bus, brokers, f"{64 + turn}MiB")
                os.kill(running.process.pid, signal.SIGHUP)

                def warned(said: int = said, named: str = named) -> bool:
                    found = [
                        line for line in running.output().splitlines() if "only a stop and a start take up" in line
                    ]
                    return len(found) > said and named in found[-1]

                until(warned, f"{named} is named")
                until(lambda turn=turn: running.host.spool == (64 + turn) << 20, "what can change is taken up")  # type: ignore[misc]
                assert running.call("acme", HI).status == 200
                until(lambda turn=turn: lines(running) == ["hi"] * turn, "the line", within=20)  # type: ignore[misc]
                assert logs(running) == "ok"
            # What is started meanwhile keeps to it, too.
            kill(running, "collector", "api")
            until(lambda: lines_or_none(running) == ["hi"] * 2, "the lines", within=20)
            assert running.host.kafka is not None
            assert os.listdir(running.host.logs_dir) == []


def lines_or_none(running: Platform) -> list[str]:
    """Return what programs of `acme` printed; nothing while the api is away."""
    with contextlib.suppress(AssertionError, OSError, HTTPException):
        return texts(running, "tenant/acme", "&f.sandbox=true")
    return []


def numbers(running: Platform, tenant: str) -> list[int]:
    """Return the numbers that programs of a tenant have printed, as far as they are kept; empty if nobody answers."""
    with contextlib.suppress(AssertionError, OSError, HTTPException):
        return [int(text.split()[1]) for text in texts(running, f"tenant/{tenant}", "&f.sandbox=true")]
    return []


@pytest.mark.long
def test_a_kafka_a_collector_and_an_api_that_are_killed_cost_no_call_and_no_line(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster, on_kafka(cluster.address) as running:
        (broker,) = cluster.brokers
        with Load(running.port, f"/counted?key={running.key}", NUMBERED, threads=2, pause=0.005) as load:
            until(lambda: numbers(running, "counted"), "a line", within=20)
            broker.kill()
            until(lambda: logs(running) == "cannot be written", "/health names it", within=20)
            kill(running, "collector")
            broker.start()
            until(lambda: logs(running) == "ok", "/health", within=30)
            kill(running, "api")
            before = len(numbers(running, "counted"))
            kill(running, "collector")
            until(lambda: len(numbers(running, "counted")) > before, "lines go on", within=20)
        assert load.tally.bad == {}
        calls = load.tally.outcomes["200"]
        until(lambda: len(numbers(running, "counted")) >= calls, "all lines", within=30)
        assert numbers(running, "counted") == list(range(calls))


@pytest.mark.long
def test_over_many_deaths_under_load_no_call_is_lost_and_every_line_is_followed_once(tmp_path: Path) -> None:
    with (
        Cluster(tmp_path) as cluster,
        on_kafka(cluster.address, workers="2") as running,
        followed(running, "counted", tmp_path) as seen,
    ):
        (broker,) = cluster.brokers
        assert running.call("counted", NUMBERED).status == 200
        # It follows from here on.
        until(lambda: followed_numbers(seen) == [0], "the first line", within=20)
        with Load(running.port, f"/counted?key={running.key}", NUMBERED, threads=3, pause=0.005) as load:
            for victims in (["collector"], ["api"], ["collector", "api"], ["controller", "collector"]):
                broker.kill()
                until(lambda: logs(running) == "cannot be written", "/health names it", within=20)
                kill(running, *victims)
                broker.start()
                until(lambda: logs(running) == "ok", "/health", within=30)
                kill(running, *victims)
                count = len(followed_numbers(seen))
                until(lambda count=count: len(followed_numbers(seen)) > count, "lines go on", within=30)  # type: ignore[misc]
            broker.pause()
            time.sleep(5)
            kill(running, "collector")
            broker.resume()
            count = len(followed_numbers(seen))
            until(lambda: len(followed_numbers(seen)) > count, "lines go on", within=40)
        assert load.tally.bad == {}
        calls = 1 + load.tally.outcomes["200"]
        until(lambda: len(followed_numbers(seen)) >= calls, "all lines", within=30)
        assert followed_numbers(seen) == list(range(calls))
        assert numbers(running, "counted") == list(range(calls))


@pytest.mark.long
def test_what_a_spool_cannot_bridge_is_told_line_by_line(tmp_path: Path) -> None:
    flood = b"""let n = 0; return function (cb) {
        for (let i = 0; i < 100; i++) console.log('n ' + n++ + ' ' + 'x'.repeat(1000));
        cb(null, n);
    }"""
    with Cluster(tmp_path) as cluster, on_kafka(cluster.address, limits_output="0") as running:
        (broker,) = cluster.brokers
        with Load(running.port, f"/flood?key={running.key}", flood, threads=1, pause=0.02) as load:
            until(lambda: numbers(running, "flood"), "a line", within=20)
            broker.kill()
            until(lambda: load.tally.outcomes["200"] > 600, "60 MB of lines", within=100)
            refused = running.api("GET", "/logs/tenant/flood?follow=false")
            assert (refused.status, refused.json["retryable"]) == (503, True)
            broker.start()
            until(lambda: logs(running) == "ok", "/health", within=30)
        assert load.tally.bad == {}
        said = 100 * load.tally.outcomes["200"]

        def accounted() -> tuple[list[int], int]:
            found = texts(running, "tenant/flood")
            lost = lines_told(text for text in found if "dropped in" in text or "were dropped:" in text)
            return [int(text.split()[1]) for text in found if text.startswith("n ")], lost

        until(lambda: len(accounted()[0]) + accounted()[1] >= said, "all lines", within=60)
        kept, lost = accounted()
        assert lost > 0
        assert len(kept) + lost == said
        assert kept == sorted(set(kept))

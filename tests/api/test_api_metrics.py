"""What Prometheus gets: figures of every process, sensible ones of the dead, no tenants."""

import os
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sandpost.api.metrics import Figured, read
from sandpost.logs.figures import write
from sandpost.model.figures import Figures, Sample
from support.installation import installation, wait_for
from support.platform import free_port

CALLS = Sample(name="sandpost_calls_total", kind="counter", help="Calls.", value=5, labels={"status": "200"})
FLIGHT = Sample(name="sandpost_calls_in_flight", kind="gauge", help="Now.", value=2)
SECONDS = Sample(
    name="sandpost_call_seconds",
    kind="histogram",
    help="How long.",
    value=1.5,
    buckets=[(0.1, 2.0), (1.0, 3.0)],
    count=4,
)


def figures(index: int = 0, *samples: Sample, pid: int | None = None, at: float | None = None) -> Figures:
    return Figures(
        part="proxy",
        index=index,
        pid=os.getpid() if pid is None else pid,
        at=time.time() if at is None else at,
        samples=list(samples),
    )


def rendered(folder: Path) -> dict[str, float]:
    """Return every sample by `name{labels}` without the quotes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Figured(*read(str(folder))))
    found = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_figures_of_all_processes_are_rendered(tmp_path: Path) -> None:
    write(str(tmp_path), figures(0, CALLS, FLIGHT, SECONDS))
    write(str(tmp_path), figures(1, CALLS))
    seen = rendered(tmp_path)
    assert seen["sandpost_calls_total{part=proxy,status=200,worker=0}"] == 5
    assert seen["sandpost_calls_total{part=proxy,status=200,worker=1}"] == 5
    assert seen["sandpost_calls_in_flight{part=proxy,worker=0}"] == 2
    assert seen["sandpost_call_seconds_bucket{le=0.1,part=proxy,worker=0}"] == 2
    assert seen["sandpost_call_seconds_bucket{le=+Inf,part=proxy,worker=0}"] == 4
    assert seen["sandpost_call_seconds_sum{part=proxy,worker=0}"] == 1.5
    assert seen["sandpost_call_seconds_count{part=proxy,worker=0}"] == 4
    assert seen["sandpost_process_up{part=proxy,worker=1}"] == 1


def dead_pid() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


@pytest.mark.parametrize("way", ["dead", "hanging"])
def test_of_a_process_that_is_gone_what_happened_stays_and_what_was_does_not(tmp_path: Path, way: str) -> None:
    gone = (
        figures(0, CALLS, FLIGHT, SECONDS, pid=dead_pid())
        if way == "dead"
        else figures(0, CALLS, FLIGHT, SECONDS, at=time.time() - 11)
    )
    write(str(tmp_path), gone)
    seen = rendered(tmp_path)
    assert seen["sandpost_calls_total{part=proxy,status=200,worker=0}"] == 5
    assert seen["sandpost_call_seconds_count{part=proxy,worker=0}"] == 4
    assert seen["sandpost_process_up{part=proxy,worker=0}"] == 0
    assert "sandpost_calls_in_flight{part=proxy,worker=0}" not in seen


def test_the_long_dead_are_forgotten(tmp_path: Path) -> None:
    write(str(tmp_path), figures(7, CALLS, pid=dead_pid(), at=time.time() - 601))
    assert rendered(tmp_path) == {"sandpost_figures_unreadable{}": 0}


def test_what_is_not_figures_is_counted_and_does_no_harm(tmp_path: Path) -> None:
    write(str(tmp_path), figures(0, CALLS))
    (tmp_path / "proxy-1.json").write_text("{")
    (tmp_path / "proxy-2.json").write_bytes(b"[" * (2 << 20))
    (tmp_path / "proxy-3.json").mkdir()
    (tmp_path / "proxy-4.json.123").write_text("being written")
    seen = rendered(tmp_path)
    assert seen["sandpost_figures_unreadable{}"] == 3
    assert seen["sandpost_calls_total{part=proxy,status=200,worker=0}"] == 5


@pytest.mark.parametrize(
    "sample",
    [
        Sample(name="sandpost_x_total", kind="counter", help="", value=1, labels={"tenant": "acme"}),
        Sample(name="sandpost_x_total", kind="counter", help="", value=1, labels={"worker": "9"}),
        Sample(name="sandpost_x_total", kind="counter", help="", value=1, labels={'a"} 1\nevil': "x"}),
        Sample(name="node_cpu_total", kind="counter", help="", value=1),
        Sample(name="sandpost_x\nevil 1", kind="gauge", help="", value=1),
    ],
)
def test_names_and_labels_that_are_not_ours_to_show_are_left_out(tmp_path: Path, sample: Sample) -> None:
    write(str(tmp_path), figures(0, sample, CALLS))
    seen = rendered(tmp_path)
    assert not any("evil" in name or "acme" in name or "x_total" in name or "node_cpu" in name for name in seen)
    assert "sandpost_calls_total{part=proxy,status=200,worker=0}" in seen


def test_one_name_of_two_kinds_is_shown_once(tmp_path: Path) -> None:
    write(str(tmp_path), figures(0, CALLS))
    other = Sample(name="sandpost_calls_total", kind="gauge", help="", value=9, labels={"status": "200"})
    write(str(tmp_path), figures(1, other))
    seen = rendered(tmp_path)
    assert seen["sandpost_calls_total{part=proxy,status=200,worker=0}"] == 5
    assert "sandpost_calls_total{part=proxy,status=200,worker=1}" not in seen


def test_the_listener_serves_them_with_the_apis_own_and_nothing_else() -> None:
    port = free_port()
    with installation(metrics_listen=f"127.0.0.1:{port}") as made:
        write(made.host.metrics_dir, figures(0, CALLS))
        made.call("PUT", "/api/tenants/hush-hush", {})
        made.call("GET", "/api/tenants/hush-hush")
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain")
        assert 'sandpost_calls_total{part="proxy",status="200",worker="0"} 5.0' in answer.text
        assert (
            'sandpost_api_requests_total{method="GET",part="api",route="/api/tenants/{tenant}",status="200",'
            'worker="0"} 1.0' in answer.text
        )
        assert 'sandpost_process_up{part="api",worker="0"} 1.0' in answer.text
        assert 'sandpost_api_controller_connected{part="api",worker="0"} 0.0' in answer.text
        assert "hush-hush" not in answer.text
        wanted = {"accept": "application/openmetrics-text; version=1.0.0"}
        open_metrics = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=wanted, trust_env=False)
        assert open_metrics.text.endswith("# EOF\n")
        for path in ("/", "/api/keys", "/api/status"):
            assert httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False).status_code == 404
        made.stop()


def test_a_metrics_port_in_use_costs_the_metrics_alone() -> None:
    import socket

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with installation(metrics_listen=f"127.0.0.1:{sock.getsockname()[1]}") as made:
            wait_for(lambda: "metrics cannot be served" in made.log())
            assert made.call("GET", "/api/status").status_code == 200

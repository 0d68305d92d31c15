"""Records on their way out by OTLP, to a receiver that reads them as OpenTelemetry does."""

import email.utils
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsPartialSuccess, ExportLogsServiceResponse

from sandpost.bus.contract import Batch
from sandpost.collector import otlp
from sandpost.collector.otlp import Outgoing
from sandpost.model.host import Host, Otlp
from sandpost.model.names import SYSTEM
from support.otlp import Receiver, attributes, receiver
from support.platform import free_port
from support.waiting import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def line(text: str = "hi", **more: Any) -> bytes:
    fields = {
        "name": "sandpost", "hostname": "h", "pid": 1, "level": 30, "time": "2023-11-14T22:13:20.125Z", "msg": text,
        "v": 0, "container": "acme", **more,
    }  # fmt: skip
    return json.dumps(fields).encode() + b"\n"


def batch(*lines: bytes, stream: str = "acme") -> Batch:
    return Batch(stream=stream, source="", end=0, lines=b"".join(lines), count=len(lines), time=1.0)


def outgoing(port: int, *, tenants: bool = True, headers: Path | None = None, ca: bool = False) -> Outgoing:
    scheme = "https" if ca else "http"
    settings = Otlp(
        endpoint=f"{scheme}://127.0.0.1:{port}/in/logs", port=port, ca=ca, headers=headers is not None, tenants=tenants
    )
    host = SimpleNamespace(tag="7", otlp_dir="" if headers is None else str(headers))
    made = Outgoing(cast("Host", host), settings, "here")
    made.start()
    return made


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.mark.parametrize(
    ("level", "number", "text"),
    [(10, 1, "TRACE"), (20, 5, "DEBUG"), (30, 9, "INFO"), (40, 13, "WARN"), (50, 17, "ERROR"), (60, 21, "FATAL"),
     (35, 9, "INFO"), (1, 1, "TRACE"), (999, 21, "FATAL")],
)  # fmt: skip
def test_a_record_has_its_place_in_opentelemetrys(there: Receiver, level: int, number: int, text: str) -> None:
    out = outgoing(there.port)
    out.take([batch(line(level=level, trace_id=TRACE, req_id="r1", sandbox=True, cart={"n": [1, None, 2**70, 1.5]}))])
    until(there.records, "a record")
    out.close()
    (record,) = there.records()
    assert (record.severity_number, record.severity_text, record.body.string_value) == (number, text, "hi")
    assert record.time_unix_nano == record.observed_time_unix_nano == 1_700_000_000_125_000_000
    assert record.trace_id.hex() == TRACE
    assert record.span_id == b""
    assert attributes(record) == {
        "pid": 1, "container": "acme", "req_id": "r1", "sandbox": True, "cart": {"n": [1, None, str(2**70), 1.5]}
    }  # fmt: skip
    (resource,) = there.requests[0].resource_logs
    assert {one.key: one.value.string_value for one in resource.resource.attributes} == {
        "service.name": "sandpost", "service.instance.id": "7", "host.name": "here"
    }  # fmt: skip
    assert there.headers[0][":path"] == "/in/logs"
    assert out.sent == 1
    assert (out.lost, out.problem) == (0, "")


def test_a_programs_own_record_keeps_its_name_and_one_without_a_trace_has_none(there: Receiver) -> None:
    out = outgoing(there.port)
    out.take([batch(line(name="shop"))])
    until(there.records, "a record")
    out.close()
    (record,) = there.records()
    assert attributes(record)["bunyan.name"] == "shop"
    assert record.trace_id == b""


@pytest.mark.parametrize(
    "rubbish",
    [
        b"rubbish\n",
        b"[1]\n",
        b"{}\n",
        line(time="yesterday"),
        line(trace_id="no number"),
        line(level="high"),
        b"\n",
        line(time="1969-12-31T23:59:59Z"),
        line(time="2600-01-01T00:00:00Z"),
        line(trace_id="1" * 33),
        line(trace_id="-1"),
    ],
)
def test_what_is_no_record_is_counted_and_what_stands_beside_it_gets_out(there: Receiver, rubbish: bytes) -> None:
    out = outgoing(there.port)
    out.take([batch(line("before"), rubbish, line("behind"), stream=SYSTEM)])
    until(lambda: out.sent, "two records")
    out.close()
    assert there.bodies() == ["before", "behind"]
    assert out.lost == 1


def test_order_stays_and_few_wait_for_one_request(there: Receiver) -> None:
    out = outgoing(there.port)
    for number in range(2000):
        out.take([batch(line(str(number)))])
    until(lambda: out.sent == 2000, "all of them")
    out.close()
    assert there.bodies() == [str(number) for number in range(2000)]
    assert len(there.requests) < 20


def test_tenants_streams_can_be_left_out(there: Receiver) -> None:
    out = outgoing(there.port, tenants=False)
    out.take([batch(line("theirs")), batch(line("ours"), stream=SYSTEM)])
    until(lambda: out.sent, "a record")
    out.close()
    assert there.bodies() == ["ours"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_has_no_time_gets_the_same_later(
    there: Receiver, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "_TIMEOUT", 1.0)
    monkeypatch.setattr(otlp, "_PAUSE", 0.2)
    there.status = status
    out = outgoing(there.port)
    out.take([batch(line("patient"))])
    until(lambda: out.problem == f"http://127.0.0.1:{there.port}/in/logs answers {status}", "the problem")
    there.status = 200
    until(lambda: out.sent, "the record")
    out.close()
    assert there.bodies() == ["patient"]
    assert (out.lost, out.problem) == (0, "")


def test_a_receiver_says_when_to_come_again(there: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "_TIMEOUT", 1.0)
    monkeypatch.setattr(otlp, "_PAUSE", 0.1)
    there.status, there.retry_after = 503, "2"
    out = outgoing(there.port)
    out.take([batch(line("patient"))])
    until(lambda: out.problem, "the problem")
    time.sleep(1)
    assert len(there.headers) == 1
    there.status = 200
    until(lambda: out.sent, "the record")
    out.close()
    assert there.bodies() == ["patient"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 2), ("0", 2), ("30", 30), ("86400", 60), ("9" * 400, 60), ("-5", 2), ("later", 2)]
)
def test_what_a_receiver_asks_for_is_kept_within_bounds(text: str, seconds: float) -> None:
    assert otlp._pause(text) == seconds


def test_a_receiver_may_ask_by_a_date() -> None:
    assert 25 < otlp._pause(email.utils.formatdate(time.time() + 30, usegmt=True)) <= 30


@pytest.mark.parametrize(("rejected", "lost"), [(2, 2), (0, 0), (-1, 0), (9, 3)])
def test_what_a_good_answer_rejects_is_counted(there: Receiver, rejected: int, lost: int) -> None:
    partial = ExportLogsPartialSuccess(rejected_log_records=rejected, error_message="too old")
    there.answer = ExportLogsServiceResponse(partial_success=partial).SerializeToString()
    out = outgoing(there.port)
    out.take([batch(line("one"), line("two"), line("three"))])
    until(lambda: out.sent + out.lost == 3, "all of them")
    assert out.lost == lost
    until(lambda: bool(out.problem) is bool(lost), "the problem")
    there.answer = b"rubbish"
    out.take([batch(line("next"))])
    until(lambda: out.sent + out.lost == 4, "the next one")
    out.close()
    assert (out.lost, out.problem) == (lost, "")


@pytest.mark.parametrize("status", [302, 400])
def test_what_is_refused_for_good_is_counted_and_holds_nothing_up(there: Receiver, status: int) -> None:
    there.status = status
    out = outgoing(there.port)
    out.take([batch(line("refused"))])
    until(lambda: out.lost == 1, "the loss")
    assert out.problem.endswith(f"answers {status}")
    there.status = 200
    out.take([batch(line("next"))])
    until(lambda: out.sent == 1, "the next one")
    out.close()
    assert there.bodies() == ["next"]


def test_a_receiver_that_is_away_gets_what_had_room_once_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "_TIMEOUT", 1.0)
    monkeypatch.setattr(otlp, "_PAUSE", 0.2)
    port = free_port()
    out = outgoing(port)
    out.take([batch(line("early"))])
    until(lambda: out.problem == f"http://127.0.0.1:{port}/in/logs does not answer", "the problem")
    with receiver(port) as late:
        until(lambda: out.sent == 1, "the record")
        out.close()
        assert late.bodies() == ["early"]


def test_a_receiver_that_rests_holds_nobody_up_and_costs_the_oldest(
    there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "MOST", 100_000)
    there.go_on.clear()
    out = outgoing(there.port)
    longest = 0.0
    for number in range(2000):
        began = time.monotonic()
        out.take([batch(line(str(number), pad="x" * 200))])
        longest = max(longest, time.monotonic() - began)
    assert longest < 1, "it waited for the receiver"
    lost = out.lost
    assert lost > 1000
    there.go_on.set()
    until(lambda: out.sent + out.lost == 2000, "the rest", within=30)
    out.close()
    assert there.bodies()[-1] == "1999"


def test_its_end_waits_a_moment_for_what_is_left_and_no_longer(there: Receiver) -> None:
    out = outgoing(there.port)
    out.take([batch(line("last"))])
    out.close()
    assert there.bodies() == ["last"]
    there.go_on.clear()
    out = outgoing(there.port)
    out.take([batch(line("never"))])
    began = time.monotonic()
    out.close()
    assert time.monotonic() - began < 5


def test_headers_of_the_operator_are_in_each_request_and_nowhere_else(there: Receiver, tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("x-api-key: s3cret-of-otlp\nX-Scope: a b\n")
    there.status = 401
    out = outgoing(there.port, headers=tmp_path)
    out.take([batch(line())])
    until(lambda: out.problem, "the problem")
    out.close()
    assert (there.headers[0]["x-api-key"], there.headers[0]["x-scope"]) == ("s3cret-of-otlp", "a b")
    assert "s3cret" not in out.problem

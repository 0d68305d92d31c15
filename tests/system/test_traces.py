"""A caller finds his call in the logs: by its id, which its answer carries, and by the trace that it came with."""

import re
import socket

import pytest

from support.http import Answer, request
from support.logs import records_of, until_said
from support.platform import Platform
from support.waiting import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
SHOW = """return function (context, cb) {
  console.log("seen");
  cb(null, [context.headers.traceparent || "none", context.headers.tracestate || "none"]);
}"""
ID = re.compile("[0-9a-f]{16}")


def traced(running: Platform, tenant: str, parent: str | None, program: str = SHOW) -> Answer:
    headers = {"tracestate": "vendor=1", **({"traceparent": parent} if parent is not None else {})}
    return running.call(tenant, program, headers=headers)


def test_a_trace_reaches_the_program_and_all_records_of_its_call(running: Platform) -> None:
    answer = traced(running, "traced", PARENT)
    assert answer.json == [PARENT, "vendor=1"]
    until_said(running.host.logs_dir, "traced", "with HTTP 200")
    until(lambda: len(records_of(running.host.logs_dir, "traced")) == 4, "four records")
    found = records_of(running.host.logs_dir, "traced")
    assert {record["msg"].split(" ")[1] if not record.get("sandbox") else record["msg"] for record in found} == {
        "container", "webtask", "seen"
    }  # fmt: skip
    assert {record["trace_id"] for record in found} == {TRACE}
    # The next call of the same connection and head is another one.
    other = "00-" + "ab" * 16 + "-00f067aa0ba902b7-01"
    assert traced(running, "traced", other).json[0] == other
    until(lambda: len(records_of(running.host.logs_dir, "traced")) == 7, "three more")
    assert [record["trace_id"] for record in records_of(running.host.logs_dir, "traced")[4:]] == ["ab" * 16] * 3


@pytest.mark.parametrize(
    ("tenant", "parent"),
    [
        ("without", None),
        ("rubbish", "rubbish"),
        ("upper", PARENT.upper()),
        ("zero", "00-" + "0" * 32 + "-00f067aa0ba902b7-01"),
    ],
)
def test_what_is_no_trace_goes_no_further(running: Platform, tenant: str, parent: str | None) -> None:
    assert traced(running, tenant, parent).json == ["none", "none"]
    until_said(running.host.logs_dir, tenant, "with HTTP 200")
    assert not [record for record in records_of(running.host.logs_dir, tenant) if "trace_id" in record]


def test_programs_that_fail_and_do_not_compile_are_told_with_the_trace(running: Platform) -> None:
    assert traced(running, "failing", PARENT, "return cb => cb(new Error('no'))").status == 400
    assert traced(running, "failing", PARENT, "return (").status == 400
    for text in ("Error: no", "SyntaxError"):
        assert until_said(running.host.logs_dir, "failing", text)["trace_id"] == TRACE


def test_an_answer_names_its_call(running: Platform) -> None:
    first = running.call("named", "return function (cb) { cb(null, 1) }")
    code = first.headers["x-sandpost-code"]
    ids = [first.headers["x-sandpost-req"]]
    # Over one connection, where answers that are alike go a shorter way.
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as sock:
        stream = sock.makefile("rb")
        for _ in range(4):
            sock.sendall(
                f"GET /named?webtask_code={code} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {running.key}\r\n\r\n".encode()
            )
            lines = []
            while line := stream.readline().strip():
                lines.append(line.decode())
            assert stream.read(1) == b"1"
            (own,) = [line.partition(": ")[2] for line in lines if line.startswith("x-sandpost-req:")]
            ids.append(own)
    assert len(set(ids)) == 5
    assert all(ID.fullmatch(one) for one in ids)
    for one in ids:
        until_said(running.host.logs_dir, "named", f"finished webtask request {one} with HTTP 200")


def test_refusals_and_failures_name_their_call_too(running: Platform) -> None:
    failures = [
        running.call("refused", "return ("),
        running.call("refused", "return cb => { throw new Error('no') }"),
        running.call("refused", "return cb => process.exit(1)"),
        request(running.port, "POST", "/refused", "x"),
        request(
            running.port, "GET", "/refused?webtask_code=" + "0" * 64, headers={"authorization": f"Bearer {running.key}"}
        ),
    ]
    assert [one.status for one in failures] == [400, 500, 500, 403, 404]
    assert [one.headers["x-sandpost-req"] for one in failures] == [one.json["req_id"] for one in failures]


def test_a_program_cannot_name_another_call(running: Platform) -> None:
    forged = running.call(
        "forging",
        "return (context, req, res) => { try { res.setHeader('x-sandpost-req', 'f'.repeat(16)) } catch {} res.end('1') }",
    )
    raw = running.call(
        "forging",
        "return (context, req, res) => { res.socket.end('HTTP/1.1 200 OK\\r\\nx-sandpost-wire: 1\\r\\n"
        "x-sandpost-req: ffffffffffffffff\\r\\ncontent-length: 1\\r\\n\\r\\n1') }",
    )
    for one in (forged, raw):
        assert one.body == b"1"
        assert ID.fullmatch(one.headers["x-sandpost-req"])
        assert one.headers["x-sandpost-req"] != "f" * 16

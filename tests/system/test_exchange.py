"""The exchange end to end: streams both ways, upgrades, odd clients, deadlines, hostile programs."""

import base64
import json
import os
import socket
import time
from pathlib import Path

import pytest
from websockets.sync.client import connect

from support.http import exchange, request
from support.platform import Platform

HELLO = 'return function (cb) { cb(null, "Hello, world!") }'
SOURCE = """return function (context, req, res) {
    let left = Number(context.query.mib);
    const part = Buffer.alloc(1 << 20, 97);
    const more = () => { while (left-- > 0) if (!res.write(part)) return res.once('drain', more); res.end(); };
    more();
}"""
SINK = """return function (context, req, res) {
    let size = 0;
    req.on('data', (part) => size += part.length);
    req.on('end', () => res.end(String(size)));
}"""
ECHO_SOCKET = """const crypto = require('crypto');
return function (context, req, res) {
    const {socket, head} = req.upgrade;
    const accept = crypto.createHash('sha1')
        .update(req.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
    socket.write('HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n' +
        'Sec-WebSocket-Accept: ' + accept + '\\r\\n\\r\\n');
    let seen = head;
    socket.on('data', (data) => {
        seen = Buffer.concat([seen, data]);
        while (seen.length >= 6) {
            const length = seen[1] & 127;
            if (length > 125 || seen.length < 6 + length) return;
            const mask = seen.subarray(2, 6), text = Buffer.from(seen.subarray(6, 6 + length));
            for (let i = 0; i < length; i++) text[i] ^= mask[i & 3];
            socket.write(Buffer.concat([Buffer.from([seen[0], length]), text]));
            if ((seen[0] & 15) === 8) return socket.end();
            seen = seen.subarray(6 + length);
        }
    });
}"""


def known(running: Platform, tenant: str, program: str) -> str:
    """Post a program that answers by itself only when called by hash with what it needs; return its target."""
    code = running.call(tenant, program, "mib=0").headers["x-sandpost-code"]
    return f"/{tenant}?webtask_code={code}&key={running.key}"


def proxy_memory(running: Platform) -> int:
    """Resident bytes of all proxy workers."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in running.pids("proxy"))
    return pages * os.sysconf("SC_PAGESIZE")


def test_a_websocket_is_the_programs(running: Platform) -> None:
    path = known(
        running,
        "socket",
        ECHO_SOCKET.replace(
            "const {socket, head} = req.upgrade;",
            """
    if (!req.upgrade) return res.end();
    const {socket, head} = req.upgrade;""",
        ),
    )
    with connect(f"ws://127.0.0.1:{running.port}{path}", compression=None) as websocket:
        for n in range(20):
            websocket.send(f"message {n}")
            assert websocket.recv(timeout=5) == f"message {n}"


def test_server_sent_events_pass_as_they_come(running: Platform) -> None:
    program = """return function (context, req, res) {
        res.writeHead(200, {'content-type': 'text/event-stream'});
        res.write('data: 1\\n\\n');
        setTimeout(() => res.end('data: 2\\n\\n'), 600);
    }"""
    running.call("events", HELLO)
    with socket.create_connection(("127.0.0.1", running.port), 10) as sock:
        head = f"POST /events?key={running.key} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(program)}\r\n\r\n"
        sock.sendall(head.encode() + program.encode())
        began, seen = time.monotonic(), b""
        while b"data: 1" not in seen:
            seen += sock.recv(65536)
        first = time.monotonic() - began
        while b"data: 2" not in seen:
            seen += sock.recv(65536)
        assert first < 0.5 < time.monotonic() - began


@pytest.mark.parametrize("mib", [64, pytest.param(2048, marks=pytest.mark.long)])
def test_bodies_of_any_length_pass_with_flat_memory(running: Platform, mib: int) -> None:
    running.set_tenant("big", limits={"body": 0, "deadline": "5m"})
    source, sink = known(running, "big", SOURCE), known(running, "big", SINK)
    before = proxy_memory(running)
    peak = before
    with socket.create_connection(("127.0.0.1", running.port), 60) as sock:
        sock.sendall(f"GET {source}&mib={mib} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        size, turns = 0, 0
        while part := sock.recv(1 << 20):
            size += len(part)
            turns += 1
            if turns % 256 == 0:
                peak = max(peak, proxy_memory(running))
    assert size >= mib << 20
    with socket.create_connection(("127.0.0.1", running.port), 60) as sock:
        sock.sendall(
            f"PUT {sink} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {mib << 20}\r\n\r\n".encode()
        )
        part = b"a" * (1 << 20)
        for turn in range(mib):
            sock.sendall(part)
            if turn % 16 == 0:
                peak = max(peak, proxy_memory(running))
        answer = b""
        while more := sock.recv(65536):
            answer += more
    assert answer.endswith(str(mib << 20).encode())
    assert peak - before < 24 << 20


def test_a_slow_reader_holds_the_program_not_the_proxy(running: Platform) -> None:
    source = known(running, "slow-reader", SOURCE)
    before = proxy_memory(running)
    with socket.create_connection(("127.0.0.1", running.port), 30) as sock:
        sock.sendall(f"GET {source}&mib=64 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        time.sleep(1.5)
        assert proxy_memory(running) - before < 8 << 20
        size = 0
        while part := sock.recv(1 << 20):
            size += len(part)
    assert size > 64 << 20


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_a_body(running: Platform, status: int) -> None:
    program = f"return function (context, req, res) {{ res.writeHead({status}); res.end() }}"
    answer = running.call("bodyless", program)
    assert (answer.status, answer.body) == (status, b"")
    assert running.call("bodyless", HELLO).status == 200


def test_pipelined_requests_are_answered_in_order(running: Platform) -> None:
    program = "return function (context, cb) { setTimeout(() => cb(null, context.data.n), 30 - 10 * context.data.n) }"
    running.call("pipeline", HELLO)
    data = b""
    for n in range(1, 4):
        closing = "Connection: close\r\n" if n == 3 else ""
        head = f"POST /pipeline?n={n}&key={running.key} HTTP/1.1\r\nHost: x\r\n{closing}Content-Length: {len(program)}\r\n\r\n"
        data += (head + program).encode()
    seen = exchange(running.port, data)
    assert seen.count(b"HTTP/1.1 200 OK") == 3
    assert seen.index(b'\r\n\r\n"1"') < seen.index(b'\r\n\r\n"2"') < seen.index(b'\r\n\r\n"3"')


def test_an_http_1_0_client_gets_its_answer_and_the_end(running: Platform) -> None:
    head = f"POST /old?key={running.key} HTTP/1.0\r\nContent-Length: {len(HELLO)}\r\n\r\n{HELLO}"
    seen = exchange(running.port, head.encode())
    assert seen.endswith(b'\r\n\r\n"Hello, world!"')
    assert b"chunked" not in seen.lower()


def test_expect_100_continue(running: Platform) -> None:
    with socket.create_connection(("127.0.0.1", running.port), 10) as sock:
        head = f"POST /expect?key={running.key} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(HELLO)}\r\n\r\n"
        sock.sendall(head.encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        sock.sendall(HELLO.encode())
        seen = b""
        while b"Hello" not in seen:
            seen += sock.recv(65536)
        assert b"200 OK" in seen


def test_a_half_closed_client_gets_its_answer(running: Platform) -> None:
    head = f"POST /half?key={running.key} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(HELLO)}\r\n\r\n{HELLO}"
    assert b"Hello, world!" in exchange(running.port, head.encode(), half_close=True)


def test_the_deadline_ends_the_call_and_not_the_sandbox(running: Platform) -> None:
    running.set_tenant("late", limits={"deadline": "1s"})
    assert running.call("late", "let n = 0; globalThis.n = 7; return function (cb) { cb(null, 1) }").status == 200
    began = time.monotonic()
    answer = running.call("late", "return function (cb) { }")
    assert (answer.status, answer.json["reason"]) == (504, "deadline")
    assert "limits.deadline" in answer.json["message"]
    assert 0.9 < time.monotonic() - began < 3
    assert running.call("late", "return function (cb) { cb(null, globalThis.n) }").json == 7


def test_a_blocked_loop_is_ended_and_named(running: Platform) -> None:
    running.set_tenant("loop", limits={"deadline": "20s", "blocked_after": "2s"})
    assert running.call("loop", HELLO).status == 200
    began = time.monotonic()
    answer = running.call("loop", "return function (cb) { for (;;); }")
    assert (answer.status, answer.json["message"]) == (500, "Blocked event loop")
    assert answer.json["error"] == "Script generated an unhandled asynchronous exception."
    assert time.monotonic() - began < 10
    assert running.call("loop", HELLO).status == 200


def test_a_busy_loop_that_then_answers_is_served(running: Platform) -> None:
    program = "return function (cb) { const end = Date.now() + 4000; while (Date.now() < end); cb(null, 'done') }"
    assert running.call("busy", program).json == "done"


def test_a_client_that_goes_away_is_noticed_by_the_program(running: Platform) -> None:
    program = """globalThis.gone = globalThis.gone || 0;
    return function (context, req, res) {
        if (context.query.ask) return res.end(String(globalThis.gone));
        res.on('close', () => { globalThis.gone++ });
        res.write('here');
    }"""
    assert running.call("leaver", program, "ask=1").body == b"0"
    with socket.create_connection(("127.0.0.1", running.port), 10) as sock:
        head = f"POST /leaver?key={running.key} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(program)}\r\n\r\n"
        sock.sendall((head + program).encode())
        seen = b""
        while b"here" not in seen:
            seen += sock.recv(65536)
    deadline = time.monotonic() + 5
    while running.call("leaver", program, "ask=1").body != b"1":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_call_of_its_own_sandbox_each(running: Platform) -> None:
    running.set_tenant("single", isolation="per_request")
    program = "globalThis.n = (globalThis.n || 0) + 1; return function (cb) { cb(null, [globalThis.n, require('os').hostname()]) }"
    answers = [running.call("single", program) for _ in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert [answer.json[0] for answer in answers] == [1] * 4


def test_limits_are_told_with_their_name_value_and_setting(running: Platform) -> None:
    running.set_tenant("limited", limits={"code": "1KiB", "calls": 1})
    answer = running.call("limited", "//" + "x" * 2000)
    assert answer.status == 413
    assert "limits.code" in answer.json["message"]
    assert "1 KiB" in answer.json["message"] or "1KiB" in answer.json["message"] or "1024" in answer.json["message"]


def test_what_a_program_sends_outside_http_reaches_only_its_own_call(running: Platform) -> None:
    # The program writes a second whole answer behind its own, on the connection that the next call would use.
    evil = """return function (context, req, res) {
        const extra = 'HTTP/1.1 200 OK\\r\\ncontent-length: 6\\r\\n\\r\\nstolen';
        req.socket.write('HTTP/1.1 200 OK\\r\\nx-sandpost-wire: 1\\r\\ncontent-length: 2\\r\\n\\r\\nok' + extra + extra);
    }"""
    running.call("forger", HELLO)
    for _ in range(10):
        assert running.call("forger", evil).status in {200, 502}
        assert running.call("forger", HELLO).body == b'"Hello, world!"'
        assert running.call("bystander", HELLO).body == b'"Hello, world!"'


def test_a_browser_may_call(running: Platform) -> None:
    answer = request(
        running.port,
        "OPTIONS",
        f"/acme?key={running.key}",
        headers={"Origin": "https://example.com", "Access-Control-Request-Method": "POST"},
    )
    assert answer.status in {200, 204}
    assert answer.headers["access-control-allow-origin"] in {"*", "https://example.com"}
    answer = running.call("acme", HELLO, headers={"Origin": "https://example.com"})
    assert answer.headers["access-control-allow-origin"] in {"*", "https://example.com"}


def test_binary_and_json_survive(running: Platform) -> None:
    program = "return function (context, cb) { cb(null, {text: '\\u20ac \\u0000', n: 1e300, list: [null, true]}) }"
    assert running.call("json", program).json == {"text": "\u20ac \x00", "n": 1e300, "list": [None, True]}
    raw = bytes(range(256))
    program = (
        f"return function (context, req, res) {{ res.end(Buffer.from('{base64.b64encode(raw).decode()}', 'base64')) }}"
    )
    assert running.call("json", program).body == raw
    assert json.loads(running.call("json", HELLO).body)

"""Programs that misbehave on the exchange: each gets a typed answer of its own, nobody else notices, the next call is served."""

import base64
import json
import re
import time
from collections.abc import Iterator

import pytest

from support import corpus
from support.http import exchange
from support.platform import Platform, platform

HELLO = 'return function (cb) { cb(null, "Hello, world!") }'
HELD_BACK_AFTER = 5


@pytest.fixture(scope="module")
def strict() -> Iterator[Platform]:
    """A platform whose deadlines are short."""
    with platform(pool_size="4", limits_deadline="6s", limits_blocked_after="2s") as running:
        yield running


def ask(running: Platform, tenant: str, program: str) -> tuple[int, bytes, bytes]:
    """POST a program on a connection of its own; return status, head and body exactly as they come."""
    head = f"POST /{tenant}?key={running.key} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(program)}\r\n\r\n"
    seen = exchange(running.port, (head + program).encode(), timeout=20)
    head_seen, _, body = seen.partition(b"\r\n\r\n")
    return int(head_seen.split()[1]), head_seen, body


def neighbours_are_well(running: Platform, tenant: str) -> None:
    """The tenant's next call is served, and another tenant's before a loop that hangs would be ended."""
    assert running.call(tenant, HELLO).body == b'"Hello, world!"'
    began = time.monotonic()
    assert running.call("bystander", HELLO).body == b'"Hello, world!"'
    assert time.monotonic() - began < 2


CB = "return function (cb) { %s }"
RES = "return function (context, req, res) { %s }"
TYPED = [
    ("throw_then_callback", CB % "setTimeout(() => cb(null, 1), 20); throw new Error('now')", 500, "sync_exception"),
    ("callback_error", CB % "cb(new Error('e'))", 400, "script_error"),
    ("throw_null", CB % "throw null", 500, "sync_exception"),
    ("throw_undefined", CB % "throw undefined", 500, "sync_exception"),
    ("throw_traps", CB % "throw {get message() { throw 1 }, get stack() { throw 2 }, toString() { throw 3 }}", 500, "sync_exception"),
    ("throw_proxy", CB % "throw new Proxy({}, {get() { throw 1 }, getPrototypeOf() { throw 2 }, ownKeys() { throw 3 }})", 500, "sync_exception"),
    ("throw_in_timer", CB % "setTimeout(() => { throw null }, 1)", 500, "async_exception"),
    ("throw_in_promise", CB % "Promise.reject(new Error('p'))", 500, "async_exception"),
    ("exit", CB % "process.exit(0)", 500, "exit"),
    ("abort", CB % "process.abort()", 500, "crash"),
    ("kill_group", CB % "process.kill(0, 'SIGKILL')", 500, "crash"),
    ("kill_self_from_a_child", CB % "require('child_process').exec('kill -9 ' + process.pid)", 500, "crash"),
    ("kill_all", CB % "require('child_process').exec('kill -9 -1')", 500, "crash"),
    ("tojson_throws", CB % "cb(null, {toJSON() { throw new Error('no') }})", 400, "not_serializable"),
    ("cyclic", CB % "const a = []; a.push(a); cb(null, a)", 400, "not_serializable"),
    ("deep", CB % "let a = []; for (let i = 0; i < 100000; i++) a = [a]; cb(null, a)", 400, "not_serializable"),
    ("bigint", CB % "cb(null, 1n)", 400, "not_serializable"),
    ("split_reason", RES % r"res.writeHead(200, 'OK\r\nx: y'); res.end()", 500, "sync_exception"),
    ("split_name", RES % r"res.setHeader('a\r\nb', 'c'); res.end()", 500, "sync_exception"),
    ("split_value", RES % r"res.setHeader('a', 'b\r\nc: d'); res.end()", 500, "sync_exception"),
    ("status_99", RES % "res.writeHead(99); res.end()", 500, "sync_exception"),
    ("length_too_long", RES % "res.setHeader('content-length', 50); res.end('short')", 502, "bad_gateway"),
    ("length_too_short", RES % "res.setHeader('content-length', 2); res.end('longer')", 502, "bad_gateway"),
    ("no_answer", RES % "req.socket.destroy()", 502, "bad_gateway"),
    ("not_the_runtimes", RES % r"req.socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok')", 502, "bad_gateway"),
]  # fmt: skip
SLOW = [
    ("never", CB % "", 504, "deadline"),
    ("stopped", CB % "process.kill(process.pid, 'SIGSTOP')", 504, "deadline"),
    ("loop", CB % "for (;;);", 500, "blocked"),
    ("microtasks", CB % "const again = () => queueMicrotask(again); again()", 500, "blocked"),
    ("pattern", CB % "/^(a+)+$/.test('a'.repeat(60) + 'b'); cb(null, 1)", 500, "blocked"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "program", "status", "reason"),
    [pytest.param(*case, id=case[0], marks=pytest.mark.long if case in SLOW else ()) for case in TYPED + SLOW],
)
def test_a_misbehaving_program_gets_its_typed_error(
    strict: Platform, name: str, program: str, status: int, reason: str
) -> None:
    assert strict.call(name, HELLO).status == 200
    seen, _, body = ask(strict, name, program)
    found = json.loads(body)
    assert (seen, found["code"], found["reason"]) == (status, status, reason), body
    assert found["req_id"]
    if status == 504:
        # A sandbox that is silent after a deadline is given a second; then it is replaced.
        time.sleep(4)
    neighbours_are_well(strict, name)


ANSWERED = [
    ("callback_twice", CB % "cb(null, 1); cb(null, 2)", b"1"),
    ("throw_after_callback", CB % "cb(null, 1); throw new Error('late')", b"1"),
    ("callback_with_nothing", CB % "cb()", b"{}"),
    ("early_hints", RES % "res.writeEarlyHints({link: '</a>; rel=preload'}); res.end('ok')", b"ok"),
    ("trailers", RES % "res.write('a'); res.addTrailers({'x-secret': 'b'}); res.end()", b"1\r\na\r\n0\r\n\r\n"),
    ("body_on_204", RES % "res.writeHead(204); res.end('body')", b""),
    ("body_on_304", RES % "res.writeHead(304); res.end('body')", b""),
    (
        "pollution",
        CB % "Object.prototype.statusCode = 418; Array.prototype.join = JSON.stringify = () => 'x'; cb(null, 1)",
        b"1",
    ),
]


@pytest.mark.parametrize(("name", "program", "body"), [pytest.param(*case, id=case[0]) for case in ANSWERED])
def test_an_odd_program_is_answered_once(strict: Platform, name: str, program: str, body: bytes) -> None:
    status, head, seen = ask(strict, name, program)
    assert status in {200, 204, 304}
    assert seen == body
    assert b"x-secret" not in head
    neighbours_are_well(strict, name)


def test_a_program_does_not_speak_for_the_platform(strict: Platform) -> None:
    program = RES % (
        "for (const name of ['x-sandpost-end', 'x-sandpost-replace', 'x-sandpost-error', 'x-wt-response-source'])"
        " try { res.setHeader(name, 'forged') } catch {}"
        " res.end('ok')"
    )
    status, head, body = ask(strict, "impostor", program)
    assert (status, body) == (200, b"ok")
    assert b"forged" not in head
    neighbours_are_well(strict, "impostor")


@pytest.mark.parametrize(("data", "rule"), [pytest.param(*case[1:], id=case[0]) for case in corpus.cases("responses")])
def test_whatever_a_program_writes_for_http_is_a_typed_502(strict: Platform, data: bytes, rule: str) -> None:
    del rule
    program = RES % f"req.socket.end(Buffer.from('{base64.b64encode(data).decode()}', 'base64'))"
    strict.call("writer", HELLO)
    status, _, body = ask(strict, "writer", program)
    found = json.loads(body)
    assert (status, found["reason"], found["fault"]) == (502, "bad_gateway", "code"), body
    neighbours_are_well(strict, "writer")


def test_a_tenant_that_ends_its_sandboxes_again_and_again_is_held_back_alone(strict: Platform) -> None:
    answers = [strict.call("suicidal", CB % "process.exit(1)") for _ in range(HELD_BACK_AFTER)]
    assert {answer.json["reason"] for answer in answers} == {"exit"}
    held = strict.call("suicidal", HELLO)
    assert (held.status, held.json["reason"]) == (429, "held_back")
    assert re.search("ended fatally .* mend the program", held.json["message"])
    again = int(held.headers["retry-after"])
    assert strict.call("bystander", HELLO).status == 200
    # What it was told is true.
    time.sleep(again)
    assert strict.call("suicidal", HELLO).body == b'"Hello, world!"'

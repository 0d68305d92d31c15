"""The main road: a tenant's function in, JSON out, from a container of its own."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.http import request
from support.platform import Platform

HELLO = 'return function (cb) { cb(null, "Hello, world!") }'
COUNT = "let n = 0; return function (cb) { cb(null, ++n) }"
# The network namespace has a number; only the kernel gives it.
WHERE = "return function (cb) { cb(null, require('fs').readlinkSync('/proc/self/ns/net')) }"


def test_the_talks_first_program(running: Platform) -> None:
    answer = running.call("acme", HELLO)
    assert answer.status == 200
    assert answer.body == b'"Hello, world!"'
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-wt-response-source"] == "webtask"
    assert not any(
        name.startswith("x-sandpost-") for name in answer.headers if name not in {"x-sandpost-code", "x-sandpost-req"}
    )


def test_the_next_call_finds_the_same_sandbox(running: Platform) -> None:
    assert [running.call("counting", COUNT).json for _ in range(5)] == [1, 2, 3, 4, 5]


def test_every_tenant_has_a_sandbox_of_its_own(running: Platform) -> None:
    names = [f"tenant-{n}" for n in range(6)]
    places = {name: running.call(name, WHERE).json for name in names}
    assert len(set(places.values())) == len(names)
    assert {name: running.call(name, WHERE).json for name in names} == places


def test_query_parameters_are_the_programs_data_and_the_key_is_not(running: Platform) -> None:
    program = "return function (context, cb) { cb(null, [context.data, context.query, process.env]) }"
    data, query, environment = running.call("data", program, "name=Anna&a=1&webtask_x=2").json
    assert data == query == {"name": "Anna", "a": "1"}
    assert running.key not in json.dumps(environment)


def test_the_key_in_a_header_does_not_reach_the_program(running: Platform) -> None:
    program = "return function (context, req, res) { res.end(JSON.stringify([req.headers, req.url])) }"
    answer = request(
        running.port, "POST", "/data?a=b", program, {"Authorization": f"Bearer {running.key}", "X-Mine": "yes"}
    )
    headers, url = answer.json
    assert "authorization" not in headers
    assert headers["x-mine"] == "yes"
    assert url == "/data?a=b"
    assert running.key not in answer.body.decode()


def test_known_code_is_called_by_its_hash_with_any_method_and_body(running: Platform) -> None:
    program = """return function (context, req, res) {
        let size = 0;
        req.on('data', (part) => size += part.length);
        req.on('end', () => res.end(req.method + ' ' + size));
    }"""
    code = running.call("by-hash", program).headers["x-sandpost-code"]
    target = f"/by-hash/rest/of/path?webtask_code={code}&key={running.key}"
    assert request(running.port, "PUT", target, b"x" * 300_000).body == b"PUT 300000"
    assert request(running.port, "DELETE", target).body == b"DELETE 0"
    assert request(running.port, "HEAD", target).body == b""


def test_an_unknown_hash_is_not_found(running: Platform) -> None:
    answer = request(running.port, "POST", f"/acme?webtask_code={'0' * 64}&key={running.key}", b"x")
    assert (answer.status, answer.json["reason"]) == (404, "unknown_code")


def test_a_herd_of_first_requests_makes_one_sandbox(running: Platform) -> None:
    with ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(lambda _: running.call("herd", WHERE), range(24)))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1


@pytest.mark.parametrize(
    ("program", "status", "fields"),
    [
        ("return function (cb) { cb(new Error('no')) }", 400, {"error": "Script returned an error.", "message": "no"}),
        ("return function (cb) { throw new Error('no') }", 500, {"message": "no"}),
        ("return function (cb) { setTimeout(() => { throw new Error('no') }, 1) }", 500, {"message": "no"}),
        ("return async function (ctx, cb) { throw new Error('no') }", 400, {"message": "no"}),
        ("return function (cb { }", 400, {}),
        ("return 5", 400, {"message": "Invalid webtask code"}),
        ("return function (a, b, c, d) { }", 400, {}),
        ("return function () { }", 400, {}),
        ("return function (cb) { const a = {}; a.a = a; cb(null, a) }", 400, {}),
        ("return function (cb) { process.exit(3) }", 500, {"reason": "exit"}),
    ],
)
def test_what_goes_wrong_inside_is_told(running: Platform, program: str, status: int, fields: dict[str, str]) -> None:
    answer = running.call("failing", program)
    assert answer.status == status, answer.body
    assert answer.json["code"] == status
    assert fields.items() <= answer.json.items()
    assert answer.json["req_id"]
    # One fatal end holds nobody back.
    assert running.call("failing", HELLO).status == 200


def test_the_memory_limit_ends_the_sandbox_and_says_so(running: Platform) -> None:
    program = "return function (cb) { const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 1)) }"
    answer = running.call("hungry", program)
    assert (answer.status, answer.json["reason"]) == (500, "memory")
    assert "128 MiB" in answer.json["message"]
    assert running.call("hungry", HELLO).status == 200


def test_a_suspended_tenant_is_refused_and_its_sandbox_ends(running: Platform) -> None:
    first = running.call("suspect", WHERE).json
    assert running.api("PUT", "/api/tenants/suspect", {"state": "suspended"}).status in {200, 201}
    for _ in range(20):
        answer = running.call("suspect", WHERE)
        if answer.status == 403:
            break
    assert (answer.status, answer.json["reason"]) == (403, "suspended")
    assert running.api("PUT", "/api/tenants/suspect", {"state": "active"}).status == 200
    for _ in range(50):
        answer = running.call("suspect", WHERE)
        if answer.status == 200:
            break
    assert answer.json != first


@pytest.mark.parametrize(
    ("target", "status", "reason"),
    [
        ("/acme", 403, "no_credentials"),
        ("/acme?key=wrong", 403, "wrong_key"),
        ("/ACME?key=KEY", 400, "invalid_name"),
        ("/a%2fb?key=KEY", 400, "invalid_name"),
        ("/..?key=KEY", 400, "invalid_name"),
        ("/" + "a" * 64 + "?key=KEY", 400, "invalid_name"),
        ("/metrics?key=KEY", 404, "not_found"),
    ],
)
def test_bad_requests_get_a_typed_error(running: Platform, target: str, status: int, reason: str) -> None:
    answer = request(running.port, "POST", target.replace("KEY", running.key), HELLO)
    assert (answer.status, answer.json["reason"]) == (status, reason)
    assert running.key not in answer.body.decode()


@pytest.mark.parametrize(
    "body", [b"", b"\xef\xbb\xbf", "return function (cb) { cb(null, 1) }".encode("utf-16"), b" " * (10 << 20)]
)
def test_bodies_that_are_no_program(running: Platform, body: bytes) -> None:
    answer = running.call("acme", body)
    assert answer.status in {400, 413}
    assert answer.json["message"]
    assert running.call("acme", HELLO).status == 200

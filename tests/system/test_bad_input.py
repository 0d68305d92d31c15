"""What clients send that is no good, each against the running platform: a typed error, nothing lost, the next call served."""

import contextlib
import json
import time
from collections.abc import Iterator

import pytest

from support import corpus
from support.http import Answer, exchange, request
from support.platform import Platform

HELLO = 'return function (cb) { cb(null, "Hello, world!") }'
COUNT = "let n = 0; return function (cb) { cb(null, ++n) }"
ONE = "return function (cb) { cb(null, 1) }"
TEN_MEGABYTES = 10 << 20


@contextlib.contextmanager
def nothing_lost(running: Platform) -> Iterator[None]:
    """Whatever happens inside: a bystander's sandbox and what it remembers are there before and afterwards."""
    before = running.call("bystander", COUNT)
    assert before.status == 200, before.body
    yield
    after = running.call("bystander", COUNT)
    assert (after.status, after.json) == (200, before.json + 1)


def told(answer: Answer, status: int, reason: str) -> str:
    """Check the one shape of errors; return the message."""
    assert (answer.status, answer.json["reason"]) == (status, reason), answer.body
    assert answer.json["code"] == status
    assert answer.json["req_id"]
    message: str = answer.json["message"]
    assert len(message) > 10
    return message


def refusal(seen: bytes) -> dict[str, object]:
    """Check that `seen` is one answer, says that the connection ends, and is an error of the caller's; return it."""
    head, _, body = seen.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4")
    assert b"\r\nconnection: close" in head.lower()
    found: dict[str, object] = json.loads(body)
    assert found["fault"] == "caller"
    assert found["req_id"]
    return found


# --- heads and framing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "rule"), [pytest.param(*case[1:], id=case[0]) for case in corpus.cases("requests")])
def test_a_malformed_head_is_refused_by_its_rule(running: Platform, data: bytes, rule: str) -> None:
    with nothing_lost(running):
        # What is smuggled behind it reaches nobody.
        found = refusal(exchange(running.port, data + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert found["reason"] == "malformed_request"
    assert rule in str(found["message"])


@pytest.mark.parametrize("posted", [True, False])
@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n",
        b"-1\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"\r\n",
        b"5\r\nhelloX",
        b"5\r\nhello\n0\r\n\r\n",
        b"fffffffffffffffff\r\n",
        b"5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
    ],
)
def test_a_body_with_broken_chunks_is_refused_and_what_follows_is_no_request(
    running: Platform, body: bytes, posted: bool
) -> None:
    code = ""
    if not posted:
        sink = "return function (context, req, res) { req.on('data', () => {}); req.on('end', () => res.end('all')) }"
        code = "webtask_code=" + running.call("chunks", sink).headers["x-sandpost-code"] + "&"
    head = f"POST /chunks?{code}key={running.key} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with nothing_lost(running):
        data = head.encode() + body + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        found = refusal(exchange(running.port, data))
    assert found["reason"] == "malformed_request"
    assert running.call("chunks", HELLO).body == b'"Hello, world!"'


def test_a_head_without_end_is_refused_at_its_bound(running: Platform) -> None:
    head = b"GET /acme HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * (40 << 10)
    with nothing_lost(running):
        found = refusal(exchange(running.port, head))
    assert (found["code"], found["reason"]) == (431, "head_too_large")
    assert "32768" in str(found["message"])


def test_a_program_that_is_shorter_than_announced_is_never_run(running: Platform) -> None:
    head = f"POST /short?key={running.key} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{ONE}"
    with nothing_lost(running):
        assert b" 200 " not in exchange(running.port, head.encode(), half_close=True)
    assert all(record.get("tenant") != "short" for record in running.records())


# --- names ------------------------------------------------------------------------------------------------


NAMES = [
    "a" * 64,
    "A",
    "Acme",
    "-a",
    "_a",
    "--help",
    "a.b",
    "a:b",
    "a@b",
    "a+b",
    "a;b",
    "a,b",
    "a*",
    "a~",
    "$(id)",
    "a|b",
    "a'b",
    "..",
    ".",
    "...",
    "%2e%2e",
    "%2E",
    "a%2fb",
    "a%2Fb",
    "a%5cb",
    "%00",
    "a%00b",
    "a%20b",
    "a%0d%0aX:y",
    "%61cme",
    "a%",
    "a%zz",
    "%c3%a4",
    "%D0%B0cme",
    "%ef%bd%81cme",
    "/acme",
    "favicon.ico",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_outside_the_alphabet_is_refused_and_never_made_fit(running: Platform, name: str) -> None:
    with nothing_lost(running):
        message = told(request(running.port, "POST", f"/{name}?key={running.key}", ONE), 400, "invalid_name")
        assert "write" in message or "use 1 to 63 of a-z" in message
        # With code that is known, too: the other way in.
        target = f"/{name}?webtask_code={'0' * 64}&key={running.key}"
        told(request(running.port, "GET", target), 400, "invalid_name")
    assert {record["tenant"] for record in running.records() if record.get("tenant")} <= {"bystander", "chunks", "acme"}


@pytest.mark.parametrize(
    "name", ["a" * 64, "A", "..", "a%2fb", "a%00", "a%5cb", "%2e%2e", "-a", "a.b", "api", "health"]
)
def test_a_name_outside_the_alphabet_cannot_be_registered(running: Platform, name: str) -> None:
    before = running.api("GET", "/api/tenants").json
    answer = running.api("PUT", f"/api/tenants/{name}", {})
    assert answer.status in {400, 404}, answer.body
    assert answer.json["reason"] in {"invalid_name", "not_found"}
    assert answer.json["message"]
    assert running.api("GET", "/api/tenants").json == before


def test_the_longest_name_is_served(running: Platform) -> None:
    assert running.call("a" * 63, HELLO).body == b'"Hello, world!"'


def test_dot_segments_behind_the_tenant_lead_to_nobody_else(running: Platform) -> None:
    where = "return function (context, req, res) { res.end(req.url) }"
    code = running.call("dots", where).headers["x-sandpost-code"]
    for rest in ("/../bystander", "/%2e%2e/bystander", "/..%2fbystander", "/%00"):
        answer = request(running.port, "GET", f"/dots{rest}?webtask_code={code}&key={running.key}")
        assert (answer.status, answer.body.decode()) == (200, f"/dots{rest}")


# --- keys -------------------------------------------------------------------------------------------------


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def made_key(running: Platform, tenant: str) -> dict[str, str]:
    answer = running.api("POST", f"/api/tenants/{tenant}/keys", {})
    assert answer.status == 201, answer.body
    made: dict[str, str] = answer.json
    time.sleep(1)
    return made


@pytest.mark.parametrize(
    ("query", "header", "status", "reason"),
    [
        ("", None, 403, "no_credentials"),
        ("KEY=GOOD", None, 403, "no_credentials"),
        ("", "Basic YTpi", 403, "no_credentials"),
        ("", "Bearer ", 403, "no_credentials"),
        ("", "GOOD", 403, "no_credentials"),
        ("key=", None, 403, "wrong_key"),
        ("key=wrong", None, 403, "wrong_key"),
        ("key=%00", None, 403, "wrong_key"),
        ("key=GOODx", None, 403, "wrong_key"),
        ("", "Bearer GOODx", 403, "wrong_key"),
        ("", "Bearer " + "x" * 20_000, 403, "wrong_key"),
        ("key=GOOD&key=GOOD", None, 400, "malformed_request"),
        ("key=GOOD", "Bearer wrong", 400, "malformed_request"),
    ],
)
def test_a_key_that_is_none_is_refused_and_never_repeated(
    running: Platform, query: str, header: str | None, status: int, reason: str
) -> None:
    headers = {} if header is None else {"Authorization": header.replace("GOOD", running.key)}
    with nothing_lost(running):
        answer = request(running.port, "POST", "/acme?" + query.replace("GOOD", running.key), HELLO, headers)
    told(answer, status, reason)
    assert running.key not in answer.body.decode()


def test_a_tenants_key_is_good_for_that_tenant_alone(running: Platform) -> None:
    running.set_tenant("mine")
    running.set_tenant("theirs")
    key = made_key(running, "mine")["key"]
    assert request(running.port, "POST", f"/mine?key={key}", HELLO).status == 200
    code = running.call("theirs", HELLO).headers["x-sandpost-code"]
    with nothing_lost(running):
        for answer in (
            request(running.port, "POST", f"/theirs?key={key}", HELLO),
            request(running.port, "POST", "/theirs", HELLO, bearer(key)),
            request(running.port, "GET", f"/theirs?webtask_code={code}&key={key}"),
            request(running.port, "GET", "/api/tenants/theirs", headers=bearer(key)),
            request(running.port, "GET", "/api/tenants/theirs/keys", headers=bearer(key)),
            request(running.port, "GET", "/api/status", headers=bearer(key)),
            request(running.port, "PUT", "/api/tenants/mine", '{"limits": {"memory": "1GiB"}}', bearer(key)),
        ):
            assert "not authorized to perform operation on tenant" in (
                message := told(answer, 403, "not_authorized")
            ) or ("needs the operator's key" in message)
            assert key not in answer.body.decode()
    # Code of another tenant is not found by its hash either, unless one has the very text.
    theirs = running.call("theirs", "return function (cb) { cb(null, 'a secret recipe') }").headers["x-sandpost-code"]
    told(request(running.port, "GET", f"/mine?webtask_code={theirs}&key={key}"), 404, "unknown_code")
    assert request(running.port, "POST", f"/mine?key={key}", HELLO).status == 200


def test_a_revoked_key_is_refused_everywhere_within_a_second(running: Platform) -> None:
    running.set_tenant("revoking")
    made = made_key(running, "revoking")
    target, key = f"/revoking?key={made['key']}", made["key"]
    # Every worker has seen it and keeps what it knows.
    for _ in range(20):
        assert request(running.port, "POST", target, HELLO).status == 200
    assert running.api("DELETE", f"/api/tenants/revoking/keys/{made['id']}").status == 204
    time.sleep(1)
    for _ in range(20):
        told(request(running.port, "POST", target, HELLO), 403, "wrong_key")
        told(request(running.port, "GET", "/api/tenants/revoking", headers=bearer(key)), 403, "wrong_key")
    assert running.call("revoking", HELLO).status == 200


# --- routes and methods -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "status", "reason", "words"),
    [
        ("GET", "/", 404, "not_found", "POST a program"),
        ("POST", "/metrics", 404, "not_found", "POST a program"),
        ("GET", "/health/deep", 404, "not_found", "/health/live"),
        ("GET", "/api/nope", 404, "not_found", "openapi.json"),
        ("GET", "/logs", 404, "not_found", "openapi.json"),
        ("GET", "/acme", 405, "method_not_allowed", "webtask_code"),
        ("BREW", "/acme", 405, "method_not_allowed", "webtask_code"),
        ("TRACE", "/acme", 405, "method_not_allowed", "webtask_code"),
        ("DELETE", "/health", 405, "method_not_allowed", "GET"),
        ("POST", "/api/status", 405, "method_not_allowed", "GET"),
        ("BREW", "/api/tenants/acme", 405, "method_not_allowed", "PUT"),
        ("POST", "/acme?webtask_code=x", 404, "unknown_code", "SHA-256"),
        ("POST", "/acme?webtask_code=../../../etc/passwd", 404, "unknown_code", "SHA-256"),
        ("POST", f"/acme?webtask_code={'0' * 64}", 404, "unknown_code", "POST it again"),
    ],
)
def test_an_unknown_route_or_method_is_told_what_there_is(
    running: Platform, method: str, target: str, status: int, reason: str, words: str
) -> None:
    with nothing_lost(running):
        answer = request(running.port, method, target, headers=bearer(running.key))
    assert words in told(answer, status, reason)
    if status == 405:
        assert answer.headers["allow"]


# --- code -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "reason", "words"),
    [
        (b"", 400, "invalid_code", "the body is empty"),
        (b" \n", 400, "no_function", "Invalid webtask code"),
        (b"return 5", 400, "no_function", "Invalid webtask code"),
        (b"return function () {}", 400, "wrong_signature", "Invalid webtask code"),
        (b"return function (a, b, c, d) {}", 400, "wrong_signature", "Invalid webtask code"),
        (b"\nreturn function (cb { }", 400, "compilation_failed", "(line 2, column 21)"),
        (b"throw new Error('at load')", 400, "compilation_failed", "at load"),
        (b"<!doctype html>", 400, "compilation_failed", "(line 1, column 1)"),
        (b"\xef\xbb\xbf" + ONE.encode(), 400, "invalid_code", "UTF-8 without a byte order mark"),
        (ONE.encode("utf-16"), 400, "invalid_code", "UTF-16"),
        (ONE.encode("utf-16-le"), 400, "invalid_code", "UTF-16"),
        (ONE.encode("utf-16-be"), 400, "invalid_code", "UTF-16"),
        (ONE.encode() + b"\xe9", 400, "invalid_code", "not UTF-8 (byte "),
        (b"//" + b"x" * TEN_MEGABYTES, 413, "body_too_large", "limits.code"),
        (b"//#sandpost language=ruby\n" + ONE.encode(), 415, "unsupported_language", "ruby"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_no_program_is_told_why(
    running: Platform, body: bytes, status: int, reason: str, words: str, chunked: bool
) -> None:
    head = f"POST /coder?key={running.key} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    if chunked:
        framed = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
        data = head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + framed
    else:
        data = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    assert running.call("coder", COUNT).status == 200
    seen = exchange(running.port, data, timeout=30) if status != 413 else until_answered(running.port, data)
    answer_head, _, text = seen.partition(b"\r\n\r\n")
    assert int(answer_head.split()[1]) == status, seen[:500]
    found = json.loads(text)
    assert (found["reason"], found["code"]) == (reason, status)
    assert words in found["message"]
    # The sandbox is the same as before, and has lost nothing.
    assert running.call("coder", COUNT).json > 1


def until_answered(port: int, data: bytes) -> bytes:
    """Send what is refused while it is sent: the answer comes although not all was read."""
    import socket

    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := sock.recv(65536):
                parts.append(part)
        return b"".join(parts)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [("Content-Type", "text/x-ruby", "ruby"), ("Content-Encoding", "gzip", "content-encoding")],
)
def test_a_program_of_a_form_that_is_not_run_is_told(running: Platform, field: str, value: str, words: str) -> None:
    with nothing_lost(running):
        answer = running.call("coder", ONE, headers={field: value})
    assert words in told(answer, 415, "unsupported_language")

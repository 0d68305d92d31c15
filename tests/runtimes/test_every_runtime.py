"""What every runtime does the same, of the wire (docs/runtime.md) and of what a program gets."""

from dataclasses import dataclass

import pytest

from support.runtime import Runtime

PREFIX = b"HTTP/1.1 204 No Content\r\nx-sandpost-wire: 1\r\n"


@dataclass(frozen=True)
class Words:
    """Programs of a language: answers "ok", sends its body back, answers with its context."""

    ok: str
    echo: str
    show: str


WORDS = {
    "runtime": Words(
        "return cb => cb(null, 'ok')",
        "return (context, req, res) => { req.pipe(res); }",
        "return (context, cb) => cb(null, context)",
    ),
    "python": Words(
        "def main(context):\n    return 'ok'",
        "def main(context, request, response):\n    for piece in request:\n        response.write(piece)",
        "def main(context):\n    return context",
    ),
}


@pytest.fixture(params=sorted(WORDS))
def kind(request: pytest.FixtureRequest) -> str:
    """The fixture that starts a runtime."""
    name: str = request.param
    return name


@pytest.fixture
def either(request: pytest.FixtureRequest, kind: str) -> Runtime:
    """A runtime with its defaults, of every language in turn."""
    runtime: Runtime = request.getfixturevalue(kind)
    return runtime


@pytest.fixture
def words(kind: str) -> Words:
    """Programs in its language."""
    return WORDS[kind]


@pytest.mark.parametrize("op", [b"probe", b"warm"])
def test_probe_and_warm_begin_with_constant_bytes(either: Runtime, op: bytes) -> None:
    for _ in range(3):
        raw = either.exchange(b"GET / HTTP/1.1\r\nhost: r\r\nx-sandpost-op: " + op + b"\r\n\r\n")
        assert raw.startswith(PREFIX), raw
        assert raw.endswith(b"\r\n\r\n")
        assert raw.count(b"\r\n\r\n") == 1


def test_a_request_without_host_is_served(either: Runtime) -> None:
    assert either.exchange(b"GET / HTTP/1.1\r\nx-sandpost-op: probe\r\n\r\n").startswith(PREFIX)


def test_warm_up_leaves_no_program_and_no_record(either: Runtime, words: Words) -> None:
    for _ in range(2):
        assert either.request("GET", "/", {"x-sandpost-op": "warm"}).status == 204
    unknown = either.request("GET", "/", {"x-sandpost-op": "call", "x-sandpost-code": "0" * 64})
    assert unknown.headers["x-sandpost-unknown"] == "1"
    assert either.read_frames() == b""
    assert either.call(words.ok).body == b'"ok"'


@pytest.mark.parametrize("op", ["", "Call", "eval", "call, call"])
def test_an_unknown_operation_is_refused(either: Runtime, op: str) -> None:
    with either.connect() as connection:
        connection.send("POST", "/", {"x-sandpost-op": op, "x-sandpost-req": "r9"}, b"body")
        answer = connection.answer()
        assert (answer.status, answer.json["reason"], answer.json["req_id"]) == (400, "bad_request", "r9")
        assert answer.headers["x-sandpost-wire"] == "1"
        connection.send("GET", "/", {"x-sandpost-op": "probe"})
        assert connection.answer().status == 204


@pytest.mark.parametrize("key", ["", "abc", "A" * 64, "g" * 64, "0" * 65])
def test_load_needs_a_hash(either: Runtime, words: Words, key: str) -> None:
    answer = either.load(words.ok, **{"x-sandpost-code": key})
    assert (answer.status, answer.json["reason"]) == (400, "bad_request")


def test_an_unknown_hash_is_told_before_the_body_is_read(either: Runtime) -> None:
    with either.connect() as connection:
        head = {"x-sandpost-op": "call", "x-sandpost-code": "0" * 64, "x-sandpost-req": "r7", "content-length": "10"}
        connection.send("POST", "/acme", head, end=False)
        answer = connection.answer()
        assert answer.status == 404
        assert answer.headers["x-sandpost-unknown"] == "1"
        assert answer.headers["x-sandpost-error"] == "unknown_code"
        assert answer.json["req_id"] == "r7"
        # The body is discarded, then the connection serves on.
        connection.sock.sendall(b"0123456789GET / HTTP/1.1\r\nhost: r\r\nx-sandpost-op: probe\r\n\r\n")
        assert connection.sock.recv(100).startswith(PREFIX)
    assert either.read_frames() == b""


def test_an_unknown_hash_gets_no_100_and_the_connection_ends(either: Runtime) -> None:
    with either.connect() as connection:
        head = {"x-sandpost-op": "call", "x-sandpost-code": "0" * 64, "content-length": "9", "expect": "100-continue"}
        connection.send("POST", "/acme", head, end=False)
        answer = connection.answer()
        assert (answer.status, answer.informational, answer.will_close) == (404, (), True)
        assert connection.sock.recv(1) == b""


def test_a_post_that_offers_an_upgrade_keeps_its_body(either: Runtime, words: Words) -> None:
    answer = either.call(words.echo, "POST", headers={"connection": "Upgrade", "upgrade": "h2c"}, body=b"body")
    assert (answer.status, answer.body) == (200, b"body")


def test_the_context_of_a_call(either: Runtime, words: Words) -> None:
    context = either.call(
        words.show, target="/acme/x?a=1&b=2&b=3&c&d=%C3%BC+%26", headers={"X-Up": "Y"}, req_id="r5"
    ).json
    assert context == {
        "id": "r5",
        "query": {"a": "1", "b": ["2", "3"], "c": "", "d": "\u00fc &"},
        "params": {},
        "secrets": {},
        "data": {"a": "1", "b": ["2", "3"], "c": "", "d": "\u00fc &"},
        "meta": {},
        "headers": {"host": "runtime", "x-up": "Y"},
    }


def test_the_platforms_query_keys_never_appear(either: Runtime, words: Words) -> None:
    target = "/acme?key=secret&webtask_code=00&webtask_pb=1&keys=k&%6bey=s&webtask%5Fx=1&a=b"
    context = either.call(words.show, target=target).json
    assert context["query"] == context["data"] == {"keys": "k", "a": "b"}


def test_without_a_body_there_is_none(either: Runtime, words: Words) -> None:
    for method, headers in (("GET", {}), ("POST", {"content-length": "0"}), ("POST", {"transfer-encoding": "chunked"})):
        seen = either.call(words.show, method, headers=headers).json
        assert "body" not in seen
        assert "body_raw" not in seen

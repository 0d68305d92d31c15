"""The wire of docs/runtime.md, byte by byte."""

import hashlib
import re
import socket
import subprocess
import threading
import time

import h11
import pytest
from bench.running import node_binary

from sandpost.model.wire import METHODS
from support.runtime import UPGRADE, Record, Runtime, StartRuntime, code_hash, rests

OK = "return cb => cb(null, 'ok')"
ECHO = "return (context, req, res) => { req.pipe(res); }"
PREFIX = b"HTTP/1.1 204 No Content\r\nx-sandpost-wire: 1\r\n"


def test_methods_of_calls_are_those_that_node_reads(runtime: Runtime) -> None:
    told = subprocess.run([node_binary(), "-p", "http.METHODS.join(' ')"], capture_output=True, text=True, check=True)
    assert set(told.stdout.split()) - {"CONNECT"} == METHODS
    for method in METHODS:
        assert runtime.call(OK, method).status == 200, method


def test_a_head_that_is_no_http_is_refused_and_closed(runtime: Runtime) -> None:
    raw = runtime.exchange(b"NONSENSE\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 400 Bad Request\r\nx-sandpost-wire: 1\r\n")
    assert runtime.probe().status == 204


@pytest.mark.parametrize("size", [60_000, 120_000])
def test_long_heads_are_read(runtime: Runtime, size: int) -> None:
    code = "return (context, cb) => cb(null, context.headers['x-long'].length)"
    assert runtime.call(code, headers={"x-long": "a" * size}).body == str(size).encode()


# --- load ---------------------------------------------------------------------------------------------------


def test_load_compiles_and_runs_nothing(runtime: Runtime) -> None:
    code = "globalThis.ran = (globalThis.ran || 0) + 1; return cb => cb(null, globalThis.ran)"
    for _ in range(3):
        assert runtime.load(code).status == 204
    assert runtime.call(code).body == b"1"
    assert runtime.call(code).body == b"1"


@pytest.mark.parametrize(
    "kind", ["application/javascript; charset=utf-8", "Text/JavaScript", "application/x-javascript"]
)
def test_types_of_javascript(runtime: Runtime, kind: str) -> None:
    assert runtime.load(OK, **{"content-type": kind}).status == 204


@pytest.mark.parametrize("kind", ["text/x-python", "text/plain", "application/json"])
def test_other_languages_are_refused(runtime: Runtime, kind: str) -> None:
    answer = runtime.load(OK, **{"content-type": kind})
    assert (answer.status, answer.json["reason"]) == (415, "unsupported_language")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_program_with_a_byte_order_mark(runtime: Runtime, encoding: str) -> None:
    text = ("" if encoding in ("utf-8-sig", "utf-16") else "\ufeff") + "return cb => cb(null, 'gr\u00fc\u00df')"
    source = text.encode(encoding)
    assert runtime.load(source).status == 204
    head = {"x-sandpost-op": "call", "x-sandpost-code": code_hash(source)}
    assert runtime.request("GET", "/a", head).body == '"gr\u00fc\u00df"'.encode()


@pytest.mark.parametrize("source", [b"return '\xff'", "return 1".encode("utf-16-le"), b"\xff\xfea"])
def test_text_in_no_known_encoding_does_not_compile(runtime: Runtime, source: bytes) -> None:
    answer = runtime.load(source)
    assert (answer.status, answer.json["reason"]) == (400, "compilation_failed")


def test_a_program_of_ten_megabytes(runtime: Runtime) -> None:
    assert runtime.call("/*" + "x" * 10_000_000 + "*/" + OK).body == b'"ok"'


# --- call ---------------------------------------------------------------------------------------------------


def test_a_known_hash_gets_its_100_before_the_body(runtime: Runtime) -> None:
    with runtime.begin(
        ECHO, "POST", headers={"content-length": "4", "expect": "100-continue"}, end=False
    ) as connection:
        event = connection.event()
        assert isinstance(event, h11.InformationalResponse)
        assert event.status_code == 100
        connection.sock.sendall(b"body")
        connection.http.send(h11.Data(data=b"body"))
        connection.http.send(h11.EndOfMessage())
        assert connection.answer().body == b"body"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "POST"])
def test_any_method_and_target_reach_the_program(runtime: Runtime, method: str) -> None:
    code = "return (context, req, res) => res.end(`${req.method} ${req.url}`)"
    target = "/acme/a%2Fb/../c?x=%00&y&webtask_x=1"
    assert runtime.call(code, method, target).body == f"{method} {target}".encode()


@pytest.mark.parametrize("name", ["expect", "Expect"])
def test_the_proxys_expect_does_not_reach_the_program(runtime: Runtime, name: str) -> None:
    head = {name: "100-continue", "x-own": "yes"}
    code = (
        "return (context, req, res) => req.resume().on('end', () => res.end(JSON.stringify("
        "[context.headers, req.headers, req.rawHeaders, req.headersDistinct])))"
    )
    with runtime.begin(code, "POST", headers=head, body=b"body") as connection:
        answer = connection.answer()
    assert answer.informational == (100,), answer
    assert answer.json[0]["x-own"] == "yes"
    assert b"xpect" not in answer.body
    seen = runtime.call("return (context, cb) => cb(null, context.headers)", "POST", headers=head, body=b"body")
    assert seen.json == {"host": "runtime", "x-own": "yes", "content-length": "4"}


def test_no_header_of_the_platform_reaches_the_program(runtime: Runtime) -> None:
    code = (
        "return (context, req, res) => res.end(JSON.stringify("
        "[context.headers, req.headers, req.rawHeaders, req.headersDistinct]))"
    )
    seen = runtime.call(code, headers={"X-Sandpost-Ticket": "t", "X-Own": "Yes"}).json
    assert seen[0] == seen[1] == {"host": "runtime", "x-own": "Yes"}
    assert seen[2] == ["host", "runtime", "X-Own", "Yes"]
    assert seen[3] == {"host": ["runtime"], "x-own": ["Yes"]}


@pytest.mark.parametrize(
    "own",
    [
        "res.setHeader('X-Sandpost-Wire', '2'); res.setHeader('x-sandpost-end', 'exit'); res.end('b')",
        "res.writeHead(200, { 'x-sandpost-wire': '2', 'X-SANDPOST-END': ['exit', 'crash'] }); res.end('b')",
        "res.writeHead(200, ['x-sandpost-wire', '2', 'x-sandpost-end', 'exit']); res.end('b')",
        "res.setHeaders(new Headers({ 'x-sandpost-wire': '2', 'x-sandpost-end': 'exit' })); res.end('b')",
        "res.appendHeader('x-sandpost-source', 'compiler'); res.flushHeaders(); res.end('b')",
    ],
)
def test_a_program_cannot_speak_for_the_platform(runtime: Runtime, own: str) -> None:
    answer = runtime.call(f"return (context, req, res) => {{ res.setHeader('x-mine', '1'); {own}; }}")
    ours = {name: value for name, value in answer.headers.items() if name.startswith("x-sandpost-")}
    assert ours == {"x-sandpost-wire": "1", "x-sandpost-source": "webtask"}
    assert answer.headers["x-mine"] == "1"
    assert answer.body == b"b"


@pytest.mark.parametrize(
    "bad",
    [
        "res.setHeader('a', 'x\\r\\nx-sandpost-end: exit')", "res.setHeader('a\\r\\nb', 'x')",
        "res.writeHead(200, 'OK\\r\\nx-evil: 1')", "res.writeHead(200, { 'a': 'b\\nc' })",
        "res.statusMessage = 'a\\r\\nb'; res.end()", "res.writeHead(99)", "res.writeHead(1000)",
        "res.writeHead('abc')", "res.statusCode = 0; res.end()", "res.writeHead(101)", "res.writeHead(102)",
        "res.end(5)", "res.write(null)", "res.writeHead(200, ['odd'])",
    ],
)  # fmt: skip
def test_a_head_that_http_does_not_allow_is_a_typed_error(runtime: Runtime, bad: str) -> None:
    answer = runtime.call(f"return (context, req, res) => {{ {bad}; }}")
    assert (answer.status, answer.json["reason"]) == (500, "sync_exception")
    assert "x-evil" not in answer.headers
    assert "x-sandpost-end" not in answer.headers
    assert runtime.call(OK).body == b'"ok"'


@pytest.mark.parametrize("length", [3, 50])
def test_a_body_of_another_length_than_said_is_broken_off_at_once(runtime: Runtime, length: int) -> None:
    code = f"return (context, req, res) => {{ res.setHeader('content-length', '{length}'); res.end('short'); }}"
    with runtime.begin(code) as connection:
        assert connection.sock.recv(1000) == b""
    assert "content-length" in runtime.records()[0].text.lower()


def test_a_failure_after_the_head_breaks_the_answer_off(runtime: Runtime) -> None:
    code = "return (context, req, res) => { res.write('part'); setTimeout(() => { throw new Error('late'); }, 20); }"
    with runtime.begin(code) as connection:
        received = b""
        while chunk := connection.sock.recv(1000):
            received += chunk
    assert received.endswith(b"\r\n\r\n4\r\npart\r\n")
    assert runtime.records()[0].text.splitlines()[1] == "Error: late"


def test_head_204_and_304_have_no_body(runtime: Runtime) -> None:
    code = (
        "return (context, req, res) => { res.writeHead(+context.query.s, { 'x-a': 'b', etag: '\"1\"' }); "
        "res.end('a body'); }"
    )
    for method, status in (("GET", 204), ("GET", 304), ("HEAD", 200), ("HEAD", 404)):
        with runtime.begin(code, method, f"/acme?s={status}") as connection:
            answer = connection.answer()
            assert (answer.status, answer.body, answer.headers["x-a"]) == (status, b"", "b")
            connection.send("GET", "/", {"x-sandpost-op": "probe"})
            assert connection.answer().status == 204


def test_head_of_a_callback_program(runtime: Runtime) -> None:
    with runtime.begin(OK, "HEAD") as connection:
        answer = connection.answer()
        assert (answer.status, answer.body) == (200, b"")
        connection.send("GET", "/", {"x-sandpost-op": "probe"})
        assert connection.answer().status == 204


def test_a_failure_at_head_has_no_body(runtime: Runtime) -> None:
    with runtime.begin("return cb => cb('no')", "HEAD") as connection:
        answer = connection.answer()
        assert (answer.status, answer.body, answer.headers["x-sandpost-error"]) == (400, b"", "script_error")
        connection.send("GET", "/", {"x-sandpost-op": "probe"})
        assert connection.answer().status == 204


def test_informational_answers_and_trailers_pass(runtime: Runtime) -> None:
    code = (
        "return (context, req, res) => { res.writeEarlyHints({ link: '</a>; rel=preload' }); "
        "res.writeHead(200, { trailer: 'x-end' }); res.write('b'); res.addTrailers({ 'x-end': '1' }); res.end(); }"
    )
    answer = runtime.call(code)
    assert (answer.informational, answer.body) == ((103,), b"b")


def test_pipelined_calls_are_answered_in_order(runtime: Runtime) -> None:
    code = "return (context, cb) => setTimeout(cb, context.query.n === '1' ? 50 : 0, null, context.query.n)"
    assert runtime.load(code).status == 204
    head = f"x-sandpost-op: call\r\nx-sandpost-code: {code_hash(code)}\r\nhost: r\r\n"
    raw = "".join(
        f"GET /acme?n={n} HTTP/1.1\r\n{head}{'connection: close' + chr(13) + chr(10) if n == 3 else ''}\r\n"
        for n in (1, 2, 3)
    ).encode()
    with socket.create_connection(("127.0.0.1", runtime.port), timeout=10) as sock:
        sock.sendall(raw)
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    assert re.findall(rb'"(\d)"', received) == [b"1", b"2", b"3"]


def test_http_1_0(runtime: Runtime) -> None:
    assert runtime.load(OK).status == 204
    head = f"x-sandpost-op: call\r\nx-sandpost-code: {code_hash(OK)}\r\n"
    raw = runtime.exchange(f"GET /acme HTTP/1.0\r\n{head}\r\n".encode())
    assert raw.endswith(b'\r\n\r\n"ok"')


def test_an_idle_connection_and_a_slow_head_are_not_ended(start_runtime: StartRuntime) -> None:
    runtime = start_runtime()
    with runtime.connect() as connection:
        connection.send("GET", "/", {"x-sandpost-op": "probe"})
        assert connection.answer().status == 204
        time.sleep(6.5)  # Node's own keep-alive timeout is 5 s with a second's grace
        connection.sock.sendall(b"GET / HTTP/1.1\r\nx-sandpost-op: ")
        time.sleep(0.5)
        connection.sock.sendall(b"probe\r\n\r\n")
        assert connection.sock.recv(100).startswith(PREFIX)


# --- streams ------------------------------------------------------------------------------------------------


def test_bodies_stream_both_ways(runtime: Runtime) -> None:
    size = 48 * 1024 * 1024
    block = hashlib.sha256(b"block").digest() * 2048
    with runtime.begin(ECHO, "POST", headers={"transfer-encoding": "chunked"}, end=False) as connection:

        def send() -> None:
            for _ in range(size // len(block)):
                connection.sock.sendall(b"%x\r\n%b\r\n" % (len(block), block))
            connection.sock.sendall(b"0\r\n\r\n")

        sender = threading.Thread(target=send)
        sender.start()
        digest = hashlib.sha256()
        received = 0
        assert isinstance(connection.event(), h11.Response)
        while isinstance(event := connection.event(), h11.Data):
            received += len(event.data)
            digest.update(event.data)
        sender.join(10)
    assert received == size
    assert digest.hexdigest() == hashlib.sha256(block * (size // len(block))).hexdigest()
    assert runtime.memory() < 64 * 1024 * 1024


def test_a_slow_reader_holds_the_program_back(runtime: Runtime) -> None:
    code = """
    const { Readable } = require('stream');
    let made = 0;
    return (context, req, res) => {
      if (context.query.ask) { res.end(String(made)); return; }
      const block = Buffer.alloc(65536, 'x');
      new Readable({ read() { made += block.length; this.push(made > 1e9 ? null : block); } }).pipe(res);
    };
    """
    with runtime.begin(code) as connection:
        connection.sock.recv(1000)
        assert rests(lambda: int(runtime.call(code, target="/acme?ask=1").body)) < 32 * 1024 * 1024


def test_an_unread_body_is_held_back(runtime: Runtime) -> None:
    code = """
    let goOn;
    return (context, req, res) => {
      if (context.query.go) { goOn(); res.end(); return; }
      req.pause();
      goOn = () => { req.resume(); req.on('end', () => res.end('read')); };
    };
    """
    with runtime.begin(code, "POST", headers={"transfer-encoding": "chunked"}, end=False) as connection:
        connection.sock.setblocking(False)
        block = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        data = block * 2048
        view = memoryview(data)
        sent = 0
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline and sent < len(data):
            try:
                sent += connection.sock.send(view[sent : sent + 1_000_000])
            except BlockingIOError:
                time.sleep(0.01)
        assert sent < 100 * 1024 * 1024  # the kernel's buffers take some 40 MiB
        assert runtime.call(code, target="/acme?go=1").status == 200
        connection.sock.settimeout(10)
        connection.sock.sendall(bytes(view[sent:]) + b"0\r\n\r\n")
        assert connection.answer().body == b"read"


def test_server_sent_events_come_one_by_one(runtime: Runtime) -> None:
    code = """
    let n = 1, next;
    return (context, req, res) => {
      if (context.query.seen) { next(); res.end(); return; }
      res.writeHead(200, { 'content-type': 'text/event-stream' });
      next = () => { if (n > 3) res.end(); else res.write(`data: ${n++}\\n\\n`); };
      next();
    };
    """
    with runtime.begin(code) as connection:
        assert isinstance(connection.event(), h11.Response)
        for n in (1, 2, 3):
            event = connection.event()
            assert bytes(event.data) == b"data: %d\n\n" % n
            assert runtime.call(code, target="/acme?seen=1").status == 200


@pytest.mark.parametrize(
    "listener", ["req.on('data', fail)", "req.on('end', fail); req.resume()", "req.on('readable', fail)"]
)
def test_a_listener_that_throws_is_charged_to_its_call(runtime: Runtime, listener: str) -> None:
    code = f"return (context, req, res) => {{ const fail = () => {{ throw new Error('in it'); }}; {listener}; }}"
    answer = runtime.call(code, "POST", body=b"body")
    assert (answer.status, answer.json["reason"], answer.json["message"]) == (500, "async_exception", "in it")
    assert runtime.call(OK).body == b'"ok"'


@pytest.mark.parametrize("who", ["req.on('close', gone)", "res.on('close', gone)", "req.on('aborted', gone)"])
def test_a_program_notices_that_its_client_went_away(runtime: Runtime, who: str) -> None:
    code = f"return (context, req, res) => {{ const gone = () => console.log('gone', res.writableEnded); {who}; res.write('x'); }}"
    with runtime.begin(code, "POST", headers={"content-length": "5"}, end=False) as connection:
        connection.sock.recv(1000)
    assert runtime.records() == [Record(30, "req-1", "gone false")]


def test_a_client_that_goes_away_frees_its_call(start_runtime: StartRuntime) -> None:
    runtime = start_runtime({"SANDPOST_PROGRAMS": "1"})
    code = "return (context, cb) => { if (context.query.now) cb(null, 1); else globalThis.late = cb; }"
    with runtime.begin(code):
        pass
    deadline = time.monotonic() + 5
    # Once the call is over its program can be unloaded.
    head = {"x-sandpost-op": "call", "x-sandpost-code": code_hash(code)}
    while runtime.request("GET", "/a?now=1", head).status != 404:
        assert time.monotonic() < deadline
        assert runtime.call(f"return cb => cb(null, {time.monotonic_ns()})").status == 200
    assert runtime.call("return cb => { globalThis.late(null, 'nobody'); cb(null, 'me'); }").body == b'"me"'


# --- upgrades -----------------------------------------------------------------------------------------------

WEBSOCKET_ECHO = """
const { createHash } = require('crypto');
return function (context, req, res) {
  if (!req.upgrade) { res.writeHead(426, { upgrade: 'websocket' }); res.end('upgrade, please'); return; }
  const { socket, head } = req.upgrade;
  const accept = createHash('sha1').update(req.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.write(`HTTP/1.1 101 Switching Protocols\\r\\nupgrade: websocket\\r\\nconnection: Upgrade\\r\\nsec-websocket-accept: ${accept}\\r\\n\\r\\n`);
  const onFrame = (bytes) => {
    const length = bytes[1] & 127, mask = bytes.subarray(2, 6), text = bytes.subarray(6, 6 + length).map((b, i) => b ^ mask[i % 4]);
    console.log('frame', text.toString());
    if (text.toString() === 'throw') throw new Error('in a frame');
    socket.write(Buffer.concat([Buffer.from([0x81, length]), text]));
  };
  if (head.length > 0) onFrame(head);
  socket.on('data', onFrame);
  socket.on('close', () => console.log('closed'));
};
"""


def frame(text: bytes) -> bytes:
    mask = b"\x01\x02\x03\x04"
    return bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(text))


def test_a_request_program_takes_an_upgrade(runtime: Runtime) -> None:
    with runtime.upgrade(WEBSOCKET_ECHO, frame(b"early")) as connection:
        head = connection.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert connection.read_until(b"early") == b"\x81\x05early"
        connection.sock.sendall(frame(b"later"))
        assert connection.read_until(b"later") == b"\x81\x05later"
        assert runtime.call(OK).body == b'"ok"'
    records = runtime.records(lambda found: len(found) == 3)
    assert records == [Record(30, "ws", "frame early"), Record(30, "ws", "frame later"), Record(30, "ws", "closed")]


def test_a_failure_after_an_upgrade_ends_its_connection(runtime: Runtime) -> None:
    with runtime.upgrade(WEBSOCKET_ECHO) as connection:
        connection.read_until(b"\r\n\r\n")
        connection.sock.sendall(frame(b"throw"))
        assert connection.sock.recv(1) == b""
    found = runtime.records(lambda records: any(record.level == 50 for record in records))
    assert any(record.req_id == "ws" and "in a frame" in record.text for record in found)
    assert runtime.probe().status == 204


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (OK, 200),
        ("return (context, cb) => setTimeout(cb, 20, null, 1)", 200),
        ("return (context, req, res) => { res.writeHead(426); res.end('no'); }", 426),
        ("return (context, req, res) => { throw 1; }", 500),
        ("return 1", 400),
    ],
)
def test_an_upgrade_that_is_not_taken_gets_an_ordinary_answer(runtime: Runtime, code: str, status: int) -> None:
    with runtime.upgrade(code) as connection:
        received = b""
        while chunk := connection.sock.recv(65536):
            received += chunk
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert received.count(b"HTTP/1.1") == 1
    assert b"connection: close\r\n" in received.lower()


def test_a_program_that_refused_an_upgrade_can_be_unloaded(start_runtime: StartRuntime) -> None:
    runtime = start_runtime({"SANDPOST_PROGRAMS": "1"})
    for code in (OK, "return (context, req, res) => { res.writeHead(426); res.end('no'); }"):
        with runtime.upgrade(code) as connection:
            while connection.sock.recv(65536):
                pass
        assert runtime.load(f"// behind {code}\n{OK}").status == 204
        head = {"x-sandpost-op": "call", "x-sandpost-code": code_hash(code)}
        with runtime.connect() as connection:
            connection.send("GET", "/", head)
            answer = connection.answer()
        assert answer.status == 404, (code, answer)


def test_an_upgrade_of_an_unknown_hash_is_an_unknown_hash(runtime: Runtime) -> None:
    head = {"x-sandpost-op": "call", "x-sandpost-code": "1" * 64, **UPGRADE}
    with runtime.connect() as connection:
        connection.send("GET", "/acme", head)
        answer = connection.answer()
        assert (answer.status, answer.headers["x-sandpost-unknown"]) == (404, "1")


def test_a_plain_request_is_told_from_an_upgrade(runtime: Runtime) -> None:
    assert runtime.call(WEBSOCKET_ECHO).status == 426

"""ASGI applications: http, lifespan, websockets."""

import os
import signal
import time
from typing import Any

import pytest

from support.runtime import Connection, Record, Runtime, StartRuntime, code_hash, rests

HELLO = """
async def app(scope, receive, send):
    assert scope['type'] == 'http'
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-type', b'text/plain')]})
    await send({'type': 'http.response.body', 'body': b'hello'})
"""


def http(body: str) -> str:
    """An application whose handling of a request is `body`, with `start` and `say` at hand."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f"""
import asyncio, json
async def app(scope, receive, send):
    if scope['type'] != 'http':
        raise RuntimeError('no such thing')
    async def start(status=200, *headers):
        await send({{'type': 'http.response.start', 'status': status, 'headers': headers}})
    async def say(data, more=False):
        await send({{'type': 'http.response.body', 'body': data, 'more_body': more}})
{lines}
"""


def test_an_application_answers(python: Runtime) -> None:
    answer = python.call(HELLO)
    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers == {
        "x-sandpost-wire": "1", "x-sandpost-source": "webtask", "content-type": "text/plain", "content-length": "5"
    }  # fmt: skip


def test_the_scope_of_a_request(python: Runtime) -> None:
    code = http("await start()\nawait say(repr(scope).encode())")
    head = {"x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.7, 10.0.0.1", "X-Sandpost-Ticket": "t"}
    scope: dict[str, Any] = eval(python.call(code, "PUT", "/acme/%C3%BC%2Fx/y?a=%20b&c", head).body)
    headers = dict(scope.pop("headers"))
    assert headers[b"host"] == b"runtime"
    assert b"x-sandpost-ticket" not in headers
    assert scope == {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "PUT",
        "scheme": "https", "path": "/acme/\u00fc/x/y", "raw_path": b"/acme/%C3%BC%2Fx/y", "query_string": b"a=%20b&c",
        "root_path": "/acme", "client": ("192.0.2.7", 0), "server": None,
    }  # fmt: skip


def test_a_main_goes_before_an_app(python: Runtime) -> None:
    assert python.call(HELLO + "def main(context):\n    return 'main'").body == b'"main"'


def test_a_body_comes_in_messages(python: Runtime) -> None:
    code = http(
        "seen = []\nwhile True:\n    m = await receive()\n    seen.append(len(m['body']))\n"
        "    if not m['more_body']: break\nawait start()\nawait say(json.dumps([sum(seen), len(seen) > 1, m['type']]).encode())"
    )
    assert python.call(code, "POST", body=b"x" * 1_000_000).json == [1_000_000, True, "http.request"]
    assert python.call(code).json == [0, False, "http.request"]


def test_an_answer_comes_in_parts(python: Runtime) -> None:
    answer = python.call(
        http(
            "await start(201, (b'x-a', b'1'), (b'x-a', b'2'))\nfor n in range(3):\n    await say(b'p%d' % n, True)\nawait say(b'')"
        )
    )
    assert (answer.status, answer.body, answer.headers["x-a"]) == (201, b"p0p1p2", "1, 2")
    assert answer.headers["transfer-encoding"] == "chunked"


def test_a_status_of_an_application_may_have_a_name(python: Runtime) -> None:
    answer = python.call(http("from http import HTTPStatus\nawait start(HTTPStatus.ACCEPTED)\nawait say(b'named')"))
    assert (answer.status, answer.body) == (202, b"named")


def test_an_application_hears_that_its_client_went_away(python: Runtime) -> None:
    code = http(
        "await start()\nawait say(b'x', True)\nwhile (m := await receive())['type'] != 'http.disconnect': pass\nprint('gone')\nawait say(b'y')"
    )
    with python.begin(code) as connection:
        connection.sock.recv(1000)
    assert python.records() == [Record(30, "req-1", "gone")]
    time.sleep(0.05)
    assert python.read_frames() == b""


@pytest.mark.parametrize(
    ("handling", "levels"),
    [
        ("raise", [30]),
        ("return", [30]),
        ("raise RuntimeError('a framework')", [30, 20]),
        ("gone = True", [30, 50]),
        ("raise KeyboardInterrupt", [30, 50]),
    ],
)
def test_send_tells_an_application_that_its_client_went_away(python: Runtime, handling: str, levels: list[int]) -> None:
    code = http(
        "await start()\ntry:\n    while True:\n        await say(b'x', True)\n        await asyncio.sleep(0.01)\n"
        f"except OSError as error:\n    print(error)\n    {handling}\nraise ValueError('another')"
    )
    with python.begin(code) as connection:
        connection.sock.recv(1000)
    found = python.records()
    python.call("def main(context):\n    print('end')", req_id="last")
    found += python.records(lambda seen: bool(seen) and seen[-1].text == "end")
    assert [(record.level, record.req_id) for record in found[:-1]] == [(level, "req-1") for level in levels]


def test_after_its_answer_an_application_hears_of_the_end(python: Runtime) -> None:
    code = http("await receive()\nawait start()\nawait say(b'x')\nprint((await receive())['type'])")
    assert python.call(code).body == b"x"
    assert python.records() == [Record(30, "req-1", "http.disconnect")]


def test_an_application_hears_of_an_end_that_came_from_elsewhere(python: Runtime) -> None:
    code = """
import asyncio
async def boom():
    raise ValueError('elsewhere')
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        return
    print((await receive())['type'])
    asyncio.create_task(boom())
    print((await receive())['type'])
"""
    for kind, headers in (("http.request", {}), ("websocket.connect", UPGRADE)):
        answer = python.call(code, headers=headers)
        assert (answer.status, answer.json["reason"]) == (500, "async_exception")
        texts = [record.text for record in python.records(lambda found: len(found) == 3)]
        assert (texts[0], texts[2]) == (kind, f"{kind.partition('.')[0]}.disconnect")
    with python.begin(code, "POST", headers={"content-length": "5"}, end=False) as connection:
        connection.sock.sendall(b"two")
        assert connection.answer().status == 500
        texts = [record.text for record in python.records(lambda found: len(found) == 3)]
        assert (texts[0], texts[2]) == ("http.request", "http.disconnect")


def test_a_slow_reader_holds_an_application_back(python: Runtime) -> None:
    code = "made = 0\n" + http(
        "global made\nawait start()\nif scope['query_string']:\n    await say(str(made).encode())\n    return\n"
        "while made < 1_000_000_000:\n    made += 65536\n    await say(b'x' * 65536, True)"
    )
    with python.begin(code) as connection:
        connection.sock.recv(1000)
        assert rests(lambda: int(python.call(code, target="/acme?ask=1").body)) < 32 * 1024 * 1024


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('early')", "early"),
        ("await start()\nraise ValueError('head only')", "head only"),
        ("pass", "the application returned before its answer was complete"),
        ("await start()", "the application returned before its answer was complete"),
        ("await say(b'x')", "http.response.start is to be sent first"),
        ("await start()\nawait start()", "http.response.start was sent before"),
        ("await start(99)\nawait say(b'')", "99 cannot be the status of an answer: use 200 to 599"),
        ("await start(200, (b'a', b'b\\nc'))\nawait say(b'')", "'b\\nc' cannot be the value of header 'a'"),
        ("await send({'type': 'http.nothing'})", "'http.nothing' is no message of an answer"),
    ],
)
def test_an_application_that_fails_before_its_answer_is_told(python: Runtime, body: str, message: str) -> None:
    answer = python.call(http(body))
    assert (answer.status, answer.json["reason"], answer.json["message"]) == (400, "script_error", message)
    assert python.call(HELLO).body == b"hello"


@pytest.mark.parametrize(
    "body",
    [
        "await start()\nawait say(b'part', True)\nraise ValueError('late')",
        "await start()\nawait say(b'part', True)",
        "await start(200, (b'content-length', b'3'))\nawait say(b'part', True)\nawait say(b'more')",
        "await start(200, (b'content-length', b'9'))\nawait say(b'part', True)\nawait say(b'')",
    ],
)
def test_an_application_that_fails_later_is_broken_off(python: Runtime, body: str) -> None:
    with python.begin(http(body)) as connection:
        received = b""
        while chunk := connection.sock.recv(1000):
            received += chunk
    assert b"0\r\n\r\n" not in received
    assert python.records()[0].level == 50


@pytest.mark.parametrize(
    "late", ["raise ValueError('background')", "asyncio.create_task(boom())\nawait asyncio.sleep(0.2)"]
)
def test_an_application_that_fails_after_its_answer_costs_no_other_call(python: Runtime, late: str) -> None:
    code = "async def boom():\n    raise ValueError('background')\n" + http(
        f"await start()\nawait say(b'whole')\nawait asyncio.sleep(0.1)\n{late}"
    )
    slow = "import asyncio\nasync def main(context):\n    await asyncio.sleep(0.4)\n    return 'other'"
    assert python.load(slow).status == 204
    with python.begin(code) as connection:
        assert connection.answer().body == b"whole"
        connection.send("GET", "/acme", {"x-sandpost-op": "call", "x-sandpost-code": code_hash(slow)})
        assert connection.answer().body == b'"other"'
    (record,) = python.records()
    assert (record.level, record.req_id) == (50, "req-1")
    assert record.text.endswith("ValueError: background")


def test_an_application_chooses_the_status_of_its_exception(python: Runtime) -> None:
    code = "class HTTPException(Exception):\n    status_code = 418\n" + http("raise HTTPException('tea')")
    assert python.call(code).status == 418


# --- lifespan -----------------------------------------------------------------------------------------------

LIFE = """
import contextlib
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        print((await receive())['type'])
        {start}
        print((await receive())['type'])
        await send({{'type': 'lifespan.shutdown.complete'}})
        return
    await send({{'type': 'http.response.start', 'status': 200}})
    await send({{'type': 'http.response.body', 'body': repr(scope.get('state')).encode()}})
"""


def test_an_application_is_started_before_its_first_call_and_once(python: Runtime) -> None:
    code = LIFE.format(start="scope['state']['db'] = 'open'; await send({'type': 'lifespan.startup.complete'})")
    connections = [python.begin(code, req_id=f"r{n}") for n in range(3)]
    try:
        assert {connection.answer().body for connection in connections} == {b"{'db': 'open'}"}
    finally:
        for connection in connections:
            connection.sock.close()
    assert [record.text for record in python.records()] == ["lifespan.startup"]


def test_an_application_that_is_unloaded_is_stopped(start_python: StartRuntime) -> None:
    python = start_python({"SANDPOST_PROGRAMS": "1"})
    python.call(LIFE.format(start="await send({'type': 'lifespan.startup.complete'})"))
    python.call("def main(c):\n    return 1")
    records = python.records(lambda found: len(found) == 2)
    assert [record.text for record in records] == ["lifespan.startup", "lifespan.shutdown"]


def test_an_application_is_stopped_when_the_sandbox_is_asked_to_end(python: Runtime) -> None:
    python.call(LIFE.format(start="await send({'type': 'lifespan.startup.complete'})"))
    os.kill(python.process.pid, signal.SIGTERM)
    assert python.process.wait(10) == -signal.SIGTERM
    assert [record.text for record in python.records(lambda found: len(found) == 2)] == [
        "lifespan.startup",
        "lifespan.shutdown",
    ]


def test_an_application_that_does_not_stop_is_not_waited_for(python: Runtime) -> None:
    code = LIFE.format(start="await send({'type': 'lifespan.startup.complete'})").replace(
        "await send({'type': 'lifespan.shutdown.complete'})", "import asyncio; await asyncio.sleep(60)"
    )
    python.call(code)
    os.kill(python.process.pid, signal.SIGTERM)
    assert python.process.wait(10) == -signal.SIGTERM


def test_without_an_application_sigterm_ends_the_process_at_once(python: Runtime) -> None:
    python.call("async def main(c):\n    return 1")
    os.kill(python.process.pid, signal.SIGTERM)
    assert python.process.wait(1) == -signal.SIGTERM


def test_an_application_that_cannot_start_fails_at_load_and_is_tried_again(python: Runtime) -> None:
    code = LIFE.format(start="await send({'type': 'lifespan.startup.failed', 'message': 'no database'})")
    for _ in range(2):
        answer = python.call(code)
        assert (answer.status, answer.json["reason"]) == (400, "compilation_failed")
        assert answer.json["message"].startswith("Compilation failed: no database")


def test_an_application_without_a_lifespan_is_served(python: Runtime) -> None:
    code = http("await start()\nawait say(repr('state' in scope).encode())")
    assert python.call(code).body == b"False"
    assert python.read_frames() == b""


# --- websockets ---------------------------------------------------------------------------------------------

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-key": KEY, "sec-websocket-version": "13"}
ECHO = """
async def app(scope, receive, send):
    if scope['type'] != 'websocket':
        return
    print((await receive())['type'], scope['subprotocols'], scope['scheme'], scope['path'])
    await send({'type': 'websocket.accept', 'subprotocol': (scope['subprotocols'] or [None])[0], 'headers': [(b'x-a', b'b')]})
    while (m := await receive())['type'] == 'websocket.receive':
        if m['text'] == 'fail':
            raise ValueError('in it')
        if m['text'] == 'close':
            await send({'type': 'websocket.close', 'code': 4000, 'reason': 'asked'})
            break
        await send({'type': 'websocket.send', 'text': m['text'], 'bytes': m['bytes']})
    print(m)
"""


def frame(data: bytes, opcode: int = 1, *, final: bool = True, masked: bool = True) -> bytes:
    length = len(data)
    size = (
        bytes([length])
        if length < 126
        else b"\x7e" + length.to_bytes(2, "big")
        if length < 65536
        else b"\x7f" + length.to_bytes(8, "big")
    )
    first = bytes([(0x80 if final else 0) | opcode])
    if not masked:
        return first + size + data
    mask = b"\x01\x02\x03\x04"
    return first + bytes([size[0] | 0x80]) + size[1:] + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


def read(sock: Any, length: int) -> bytes:
    data = b""
    while len(data) < length:
        chunk = sock.recv(length - len(data))
        assert chunk, data
        data += chunk
    return data


def read_frame(sock: Any) -> tuple[int, bytes]:
    first, second = read(sock, 2)
    assert first & 0x80
    assert not second & 0x80
    length = second
    if second == 126:
        length = int.from_bytes(read(sock, 2), "big")
    elif second == 127:
        length = int.from_bytes(read(sock, 8), "big")
    return first & 15, read(sock, length)


def websocket(python: Runtime, code: str, extra: bytes = b"", **more: str) -> tuple[Connection, bytes]:
    """Open a websocket with `extra` right behind its head; return it and the head of the answer."""
    connection = python.upgrade(code, extra, "/acme/chat", **UPGRADE, **more)
    return connection, connection.read_until(b"\r\n\r\n")


def test_a_websocket_is_accepted_and_echoes(python: Runtime) -> None:
    connection, head = websocket(python, ECHO, frame(b"early"), **{"sec-websocket-protocol": "chat, other"})
    with connection:
        assert head.startswith(b"HTTP/1.1 101 ")
        # The accept value is RFC 6455's own example.
        for line in (b"sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", b"sec-websocket-protocol: chat", b"x-a: b"):
            assert line + b"\r\n" in head
        assert read_frame(connection.sock) == (1, b"early")
        for size in (0, 1, 125, 126, 65535, 65536, 200_000):
            connection.sock.sendall(frame(b"x" * size))
            assert read_frame(connection.sock) == (1, b"x" * size)
        connection.sock.sendall(frame(b"\xff\x00", 2))
        assert read_frame(connection.sock) == (2, b"\xff\x00")
        connection.sock.sendall(
            frame(b"one ", final=False) + frame(b"p", 9) + frame(b"two ", 0, final=False) + frame(b"three", 0)
        )
        assert read_frame(connection.sock) == (10, b"p")
        assert read_frame(connection.sock) == (1, b"one two three")
        connection.sock.sendall(frame(b"\x0f\xa1bye", 8))
        assert read_frame(connection.sock) == (8, b"\x0f\xa1")
        assert connection.sock.recv(1) == b""
    texts = [record.text for record in python.records(lambda found: len(found) == 2)]
    assert texts == [
        "websocket.connect ['chat', 'other'] ws /acme/chat", "{'type': 'websocket.disconnect', 'code': 4001, 'reason': 'bye'}"
    ]  # fmt: skip


def test_an_application_closes_a_websocket(python: Runtime) -> None:
    connection, _ = websocket(python, ECHO, frame(b"close"))
    with connection:
        assert read_frame(connection.sock) == (8, b"\x0f\xa0asked")


ACCEPT = """
import asyncio
async def hear(receive, *kinds):
    for kind in kinds:
        assert (m := await receive())['type'] == f'websocket.{{kind}}', m
    print(m)
async def app(scope, receive, send):
    if scope['type'] != 'websocket':
        return
    await hear(receive, 'connect')
    await send({{'type': 'websocket.accept'}})
    {}
"""


@pytest.mark.parametrize(
    ("then", "code"),
    [
        (
            "await send({'type': 'websocket.close', 'code': 4000, 'reason': 'asked'}); await hear(receive, 'disconnect')",
            4000,
        ),
        ("scope['task'] = asyncio.create_task(hear(receive, 'disconnect')); await asyncio.sleep(0)", 1000),
    ],
)
def test_an_application_hears_of_its_own_end_of_a_websocket(python: Runtime, then: str, code: int) -> None:
    connection, _ = websocket(python, ACCEPT.format(then))
    with connection:
        assert read_frame(connection.sock)[1][:2] == code.to_bytes(2, "big")
    text = python.records(lambda found: len(found) == 2)[1].text
    assert text.startswith("{'type': 'websocket.disconnect', 'code': " + str(code))


@pytest.mark.parametrize("last", [b"", frame(b"\x03\xe8", 8)])
@pytest.mark.parametrize(("own", "levels"), [("raise", [30]), ("raise RuntimeError", [30, 20])])
def test_send_tells_an_application_that_its_websocket_is_closed(
    python: Runtime, last: bytes, own: str, levels: list[int]
) -> None:
    code = ACCEPT.format(f"""
    try:
        while True:
            await send({{'type': 'websocket.send', 'text': 'x'}})
            await asyncio.sleep(0.01)
    except OSError as error:
        print(error)
        {own}""")
    connection, _ = websocket(python, code)
    with connection:
        assert read_frame(connection.sock) == (1, b"x")
        connection.sock.sendall(last)
    records = python.records(lambda found: len(found) > len(levels))[1:]
    assert [(record.level, record.req_id) for record in records] == [(level, "ws") for level in levels]
    assert records[0].text == "the websocket is closed"


def test_an_application_that_accepts_when_its_client_has_gone_is_told(python: Runtime) -> None:
    code = ACCEPT.format("print('accepted')").replace(
        "await hear(receive, 'connect')", "await hear(receive, 'connect', 'disconnect')"
    )
    with python.begin(code, headers=UPGRADE):
        pass
    found = python.records()
    python.call("def main(context):\n    print('end')")
    found += python.records(lambda seen: bool(seen) and seen[-1].text == "end")
    assert [record.text for record in found] == [
        "{'type': 'websocket.disconnect', 'code': 1006, 'reason': ''}",
        "end",
    ]


def test_an_application_that_fails_in_a_websocket_closes_it(python: Runtime) -> None:
    connection, _ = websocket(python, ECHO, frame(b"fail"))
    with connection:
        assert read_frame(connection.sock) == (8, (1011).to_bytes(2, "big"))
    records = python.records(lambda found: len(found) == 2)
    assert records[1].req_id == "ws"
    assert records[1].text.endswith("ValueError: in it")


def test_a_client_that_vanishes_is_a_disconnect(python: Runtime) -> None:
    connection, _ = websocket(python, ECHO)
    connection.sock.close()
    assert "1006" in python.records(lambda found: len(found) == 2)[1].text


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(b"x", masked=False), 1002), (frame(b"x", 3), 1002), (frame(b"x", 0), 1002), (frame(b"x", 9, final=False), 1002),
        (frame(b"x" * 126, 9), 1002), (b"\xc1\x80\x00\x00\x00\x00", 1002), (frame(b"x", final=False) + frame(b"y"), 1002),
        (b"\x81\xff" + (1 << 62).to_bytes(8, "big") + b"mask", 1009), (frame(b"\xff"), 1007), (frame(b"\x00", 8), 1002),
        (frame((1005).to_bytes(2, "big"), 8), 1002), (frame((999).to_bytes(2, "big"), 8), 1002), (frame(b"\x03\xe8\xff", 8), 1007),
    ],
)  # fmt: skip
def test_a_client_that_breaks_the_protocol_is_told_and_closed(python: Runtime, sent: bytes, code: int) -> None:
    connection, _ = websocket(python, ECHO, sent)
    with connection:
        opcode, payload = read_frame(connection.sock)
        assert (opcode, int.from_bytes(payload[:2], "big")) == (8, code)
    assert f"'code': {code}" in python.records(lambda found: len(found) == 2)[1].text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("await receive(); await send({'type': 'websocket.close'})", 403),
        ("pass", 400),
        ("raise ValueError('no')", 400),
        ("await send({'type': 'websocket.send', 'text': 'early'})", 400),
        ("await send({'type': 'websocket.accept', 'headers': [(b'a', b'b\\r\\nc: d')]})", 400),
    ],
)
def test_a_websocket_that_is_not_accepted_gets_an_ordinary_answer(python: Runtime, body: str, status: int) -> None:
    code = f"async def app(scope, receive, send):\n    if scope['type'] == 'websocket':\n        {body}"
    connection, head = websocket(python, code)
    with connection:
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close\r\n" in head


def test_a_slow_application_holds_a_websocket_back(python: Runtime) -> None:
    code = ECHO.replace("while (m", "import asyncio; await asyncio.sleep(60)\n    while (m")
    connection, _ = websocket(python, code)
    with connection:
        connection.sock.setblocking(False)
        data = memoryview(frame(b"x" * 65536) * 1000)
        sent = 0
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline and sent < len(data):
            try:
                sent += connection.sock.send(data[sent : sent + 1_000_000])
            except BlockingIOError:
                time.sleep(0.01)
        assert sent < len(data)


def test_an_upgrade_to_something_else_is_an_ordinary_request(python: Runtime) -> None:
    headers = {"connection": "upgrade", "upgrade": "h2c"}
    answer = python.call(HELLO, headers=headers)
    assert (answer.status, answer.body, answer.will_close) == (200, b"hello", True)

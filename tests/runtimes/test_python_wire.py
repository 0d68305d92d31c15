"""The wire of docs/runtime.md as the runtime of Python speaks it, byte by byte."""

import hashlib
import re
import socket
import threading
import time
from pathlib import Path

import h11
import pytest

from sandpost.model.wire import METHODS
from support.runtime import Record, Runtime, StartRuntime, code_hash, rests

OK = "def main(context):\n    return 'ok'"
AOK = "async def main(context):\n    return 'ok'"
ECHO = "def main(context, request, response):\n    for piece in request:\n        response.write(piece)"
AECHO = (
    "async def main(context, request, response):\n    async for piece in request:\n        await response.write(piece)"
)
PREFIX = b"HTTP/1.1 204 No Content\r\nx-sandpost-wire: 1\r\n"


def test_all_methods_of_calls_are_served(python: Runtime) -> None:
    for method in METHODS:
        assert python.call(OK, method).status == 200, method


def test_after_a_quiet_moment_asyncio_is_there_and_connections_live_on(python: Runtime) -> None:
    loaded = "import sys\ndef main(context):\n    return 'asyncio' in sys.modules"
    with python.connect() as connection:
        for op in ("warm", "probe"):
            connection.send("GET", "/", {"x-sandpost-op": op})
            assert connection.answer().status == 204
        deadline = time.monotonic() + 5
        while b"asyncio" not in Path(f"/proc/{python.process.pid}/maps").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        connection.send("GET", "/", {"x-sandpost-op": "probe"})
        assert connection.answer().status == 204
    assert python.call(loaded).body == b"true"


def test_a_def_does_without_asyncio_and_an_async_def_fetches_it(python: Runtime) -> None:
    loaded = "import sys\n{} main(context):\n    return ['asyncio' in sys.modules]"
    with python.connect() as connection:
        connection.send("GET", "/", {"x-sandpost-op": "probe"})
        assert connection.answer().status == 204
        assert python.call(loaded.format("def")).json == [False]
        assert python.call(loaded.format("async def")).json == [True]
        connection.send("GET", "/", {"x-sandpost-op": "probe"})
        assert connection.answer().status == 204


@pytest.mark.parametrize(
    "raw",
    [
        b"NONSENSE\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n", b"G=T / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\na : b\r\n\r\n", b"GET / HTTP/1.1\r\na: b\r\n c: d\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", b"GET / HTTP/1.1\r\ncontent-length: +1\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", b"\x16\x03\x01\x02\x00" * 20 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\na: " + b"b" * 140_000,
    ],
)  # fmt: skip
def test_a_head_that_is_no_http_is_refused_and_closed(python: Runtime, raw: bytes) -> None:
    assert python.exchange(raw).startswith(b"HTTP/1.1 400 Bad Request\r\nx-sandpost-wire: 1\r\n")
    assert python.probe().status == 204


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"-1\r\n", b"3\r\nabcd\r\n", b"\r\n", b"1" * 5000])
def test_a_body_that_is_no_chunks_ends_the_connection(python: Runtime, chunk: bytes) -> None:
    with python.begin(OK, "POST", headers={"transfer-encoding": "chunked"}, end=False) as connection:
        connection.sock.sendall(chunk)
        assert connection.sock.recv(1) == b""
    assert python.probe().status == 204


@pytest.mark.parametrize("size", [60_000, 120_000])
def test_long_heads_are_read(python: Runtime, size: int) -> None:
    code = "def main(context):\n    return len(context.headers['x-long'])"
    assert python.call(code, headers={"x-long": "a" * size}).body == str(size).encode()


# --- load ---------------------------------------------------------------------------------------------------


def test_load_compiles_and_runs_nothing(python: Runtime) -> None:
    code = "import sys\nsys.ran = getattr(sys, 'ran', 0) + 1\ndef main(context):\n    return sys.ran"
    for _ in range(3):
        assert python.load(code).status == 204
    assert python.call(code).body == b"1"
    assert python.call(code).body == b"1"


@pytest.mark.parametrize("kind", ["text/x-python; charset=utf-8", "Text/X-Python", "application/x-python", ""])
def test_types_of_python(python: Runtime, kind: str) -> None:
    assert python.load(OK, **{"content-type": kind}).status == 204


@pytest.mark.parametrize("kind", ["application/javascript", "text/plain", "application/json"])
def test_other_languages_are_refused(python: Runtime, kind: str) -> None:
    answer = python.load(OK, **{"content-type": kind})
    assert (answer.status, answer.json["reason"]) == (415, "unsupported_language")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_program_with_a_byte_order_mark(python: Runtime, encoding: str) -> None:
    text = ("" if encoding in ("utf-8-sig", "utf-16") else "\ufeff") + "def main(c):\n    return 'gr\u00fc\u00df'"
    source = text.encode(encoding)
    assert python.load(source).status == 204
    head = {"x-sandpost-op": "call", "x-sandpost-code": code_hash(source)}
    assert python.request("GET", "/a", head).body == '"gr\u00fc\u00df"'.encode()


@pytest.mark.parametrize(
    "source", [b"a = '\xff'", "a = 1".encode("utf-16-le"), b"\xff\xfea", b"# coding: latin-1\na = '\xe4'"]
)
def test_text_in_no_known_encoding_does_not_compile(python: Runtime, source: bytes) -> None:
    answer = python.load(source)
    assert (answer.status, answer.json["reason"]) == (400, "compilation_failed")


def test_a_program_of_ten_megabytes(python: Runtime) -> None:
    assert python.call("#" + "x" * 10_000_000 + "\n" + OK).body == b'"ok"'


# --- call ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", [ECHO, AECHO, "def main(c):\n    return c.body_raw", "async def main(c):\n    return c.body_raw"]
)
def test_a_known_hash_gets_its_100_before_the_body(python: Runtime, code: str) -> None:
    headers = {"content-length": "4", "expect": "100-continue"}
    with python.begin(code, "POST", headers=headers, end=False) as connection:
        event = connection.event()
        assert isinstance(event, h11.InformationalResponse)
        assert event.status_code == 100
        connection.sock.sendall(b"body")
        connection.http.send(h11.Data(data=b"body"))
        connection.http.send(h11.EndOfMessage())
        assert b"body" in connection.answer().body


@pytest.mark.parametrize("name", ["expect", "Expect"])
def test_the_proxys_headers_do_not_reach_the_program(python: Runtime, name: str) -> None:
    head = {name: "100-continue", "x-own": "yes", "X-Sandpost-Ticket": "t", "x-sandpost-deadline": "5000"}
    code = "def main(context, request, response):\n    response.write(repr([context.headers, request.headers]))"
    with python.begin(code, "POST", headers=head, body=b"body") as connection:
        answer = connection.answer()
    assert answer.informational == (100,), answer
    assert answer.body == repr([{"host": "runtime", "x-own": "yes", "content-length": "4"}] * 2).encode()


@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_program_cannot_speak_for_the_platform(python: Runtime, word: str) -> None:
    code = f"""
{word} main(context, request, response):
    response.headers = {{'X-Sandpost-Wire': 2, 'x-sandpost-end': ['exit', 'crash'], 'connection': 'close', 'x-mine': '1',
                        'transfer-encoding': 'gzip'}}"""
    answer = python.call(code)
    ours = {name: value for name, value in answer.headers.items() if name.startswith("x-sandpost-")}
    assert ours == {"x-sandpost-wire": "1", "x-sandpost-source": "webtask"}
    assert answer.headers["x-mine"] == "1"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert not answer.will_close


@pytest.mark.parametrize(
    "bad",
    [
        "response.headers['a'] = 'x\\r\\nx-sandpost-end: exit'", "response.headers['a\\r\\nb'] = 'x'", "response.headers[''] = 'x'",
        "response.headers['a'] = '\\u20ac'", "response.headers['a b'] = 'x'", "response.status = 99", "response.status = 1000",
        "response.status = 'abc'", "response.status = 101", "response.status = None", "response.status = 200.0", "response.status = True",
        "response.headers['content-length'] = 'many'", "response.headers['content-length'] = [1, 2]",
        "{w}response.write(5)", "{w}response.write(None)", "response.headers = None",
    ],
)  # fmt: skip
@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_head_that_http_does_not_allow_is_a_typed_error(python: Runtime, bad: str, word: str) -> None:
    bad = bad.replace("{w}", "await " if word == "async def" else "")
    answer = python.call(f"{word} main(context, request, response):\n    {bad}")
    assert answer.json["reason"] in {"sync_exception", "script_error"}, answer
    assert "x-evil" not in answer.headers
    assert "x-sandpost-end" not in answer.headers
    assert python.call(OK).body == b'"ok"'


@pytest.mark.parametrize("length", [3, 50])
def test_a_body_of_another_length_than_said_is_broken_off(python: Runtime, length: int) -> None:
    code = f"def main(c, q, s):\n    s.headers['content-length'] = '{length}'\n    s.write('short')"
    with python.begin(code) as connection:
        received = b""
        while chunk := connection.sock.recv(1000):
            received += chunk
    assert received.partition(b"\r\n\r\n")[2] in {b"", b"short"}
    assert "content-length" in python.records()[0].text


@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_failure_after_the_head_breaks_the_answer_off(python: Runtime, word: str) -> None:
    wait = "await " if word == "async def" else ""
    code = f"{word} main(c, q, s):\n    {wait}s.write('part')\n    raise ValueError('late')"
    with python.begin(code) as connection:
        received = b""
        while chunk := connection.sock.recv(1000):
            received += chunk
    assert received.endswith(b"\r\n\r\n4\r\npart\r\n")
    assert python.records()[0].text.endswith("ValueError: late")


def test_head_204_and_304_have_no_body(python: Runtime) -> None:
    code = "def main(c, q, s):\n    s.status = int(c.query['s'])\n    s.headers['x-a'] = 'b'\n    s.write('a body')"
    for method, status in (("GET", 204), ("GET", 304), ("HEAD", 200), ("HEAD", 404)):
        with python.begin(code, method, f"/acme?s={status}") as connection:
            answer = connection.answer()
            assert (answer.status, answer.body, answer.headers["x-a"]) == (status, b"", "b")
            connection.send("GET", "/", {"x-sandpost-op": "probe"})
            assert connection.answer().status == 204


@pytest.mark.parametrize(("code", "status"), [(OK, 200), (AOK, 200), ("def main(c):\n    raise ValueError", 500)])
def test_head_of_a_context_program(python: Runtime, code: str, status: int) -> None:
    with python.begin(code, "HEAD") as connection:
        answer = connection.answer()
        assert (answer.status, answer.body) == (status, b"")
        connection.send("GET", "/", {"x-sandpost-op": "probe"})
        assert connection.answer().status == 204


@pytest.mark.parametrize("word", ["def", "async def"])
def test_pipelined_calls_are_answered_in_order(python: Runtime, word: str) -> None:
    sleep = "await asyncio.sleep" if word == "async def" else "time.sleep"
    code = f"import asyncio, time\n{word} main(c):\n    {sleep}(0.05 if c.query['n'] == '1' else 0)\n    return c.query['n']"
    assert python.load(code).status == 204
    head = f"x-sandpost-op: call\r\nx-sandpost-code: {code_hash(code)}\r\nhost: r\r\n"
    raw = "".join(
        f"GET /acme?n={n} HTTP/1.1\r\n{head}{'connection: close' + chr(13) + chr(10) if n == 3 else ''}\r\n"
        for n in (1, 2, 3)
    ).encode()
    with socket.create_connection(("127.0.0.1", python.port), timeout=10) as sock:
        sock.sendall(raw)
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
    assert re.findall(rb'"(\d)"', received) == [b"1", b"2", b"3"]


def received_of(python: Runtime, raw: bytes) -> bytes:
    """Send bytes, and return all that comes until the runtime closes."""
    with socket.create_connection(("127.0.0.1", python.port), timeout=10) as sock:
        sock.sendall(raw)
        received = b""
        while chunk := sock.recv(65536):
            received += chunk
        return received


@pytest.mark.parametrize("code", [OK, AOK])
def test_http_1_0(python: Runtime, code: str) -> None:
    assert python.load(code).status == 204
    head = f"x-sandpost-op: call\r\nx-sandpost-code: {code_hash(code)}\r\n"
    last = f"GET /acme HTTP/1.0\r\n{head}\r\n".encode()
    assert received_of(python, last).endswith(b'\r\n\r\n"ok"')
    kept = f"GET /acme HTTP/1.0\r\nconnection: keep-alive\r\n{head}\r\n".encode()
    assert received_of(python, kept + last).count(b'\r\n\r\n"ok"') == 2


def test_a_stream_to_http_1_0_ends_with_its_connection(python: Runtime) -> None:
    code = "def main(c, q, s):\n    s.write('one ')\n    s.write('two')"
    assert python.load(code).status == 204
    head = f"x-sandpost-op: call\r\nx-sandpost-code: {code_hash(code)}\r\n"
    raw = received_of(python, f"GET /acme HTTP/1.0\r\n{head}\r\n".encode())
    assert raw.endswith(b"\r\n\r\none two")
    assert b"chunked" not in raw


def test_a_head_that_comes_byte_by_byte_is_read(python: Runtime) -> None:
    with python.connect() as connection:
        for byte in b"GET / HTTP/1.1\r\nx-sandpost-op: probe\r\n\r\n":
            connection.sock.sendall(bytes([byte]))
            time.sleep(0.001)
        assert connection.sock.recv(100).startswith(PREFIX)


# --- streams ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [ECHO, AECHO])
def test_bodies_stream_both_ways(python: Runtime, code: str) -> None:
    size = 16 * 1024 * 1024
    block = hashlib.sha256(b"block").digest() * 2048
    with python.begin(code, "POST", headers={"transfer-encoding": "chunked"}, end=False) as connection:

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
    assert python.memory() < 64 * 1024 * 1024


@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_slow_reader_holds_the_program_back(python: Runtime, word: str) -> None:
    wait = "await " if word == "async def" else ""
    code = f"""
made = 0
{word} main(c, q, s):
    global made
    if 'ask' in c.query:
        {wait}s.write(str(made))
        return
    while made < 1_000_000_000:
        made += 65536
        {wait}s.write(b'x' * 65536)
"""
    with python.begin(code) as connection:
        connection.sock.recv(1000)
        assert rests(lambda: int(python.call(code, target="/acme?ask=1").body)) < 32 * 1024 * 1024


@pytest.mark.parametrize("word", ["def", "async def"])
def test_an_unread_body_is_held_back(python: Runtime, word: str) -> None:
    wait, sleep = ("await ", "await asyncio.sleep") if word == "async def" else ("", "time.sleep")
    code = f"""
import asyncio, time
going = False
{word} main(c, q, s):
    global going
    if 'go' in c.query:
        going = True
        return
    while not going:
        {sleep}(0.01)
    size = 0
    while piece := {wait}q.read():
        size += len(piece)
    {wait}s.write(str(size))
"""
    with python.begin(code, "POST", headers={"transfer-encoding": "chunked"}, end=False) as connection:
        connection.sock.setblocking(False)
        block = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        data = block * 1024
        view = memoryview(data)
        sent = 0
        deadline = time.monotonic() + 0.3
        while time.monotonic() < deadline and sent < len(data):
            try:
                sent += connection.sock.send(view[sent : sent + 1_000_000])
            except BlockingIOError:
                time.sleep(0.01)
        assert sent < 60 * 1024 * 1024  # the kernel's buffers take some 10 to 40 MiB
        assert python.call(code, target="/acme?go=1").status == 200
        connection.sock.settimeout(10)
        connection.sock.sendall(bytes(view[sent:]) + b"0\r\n\r\n")
        assert connection.answer().body == b"67108864"


def test_a_read_that_was_given_up_loses_nothing(python: Runtime) -> None:
    code = """
import asyncio, time
async def main(c, q, s):
    pieces, given_up = [], 0
    while True:
        reading = asyncio.ensure_future(q.read())
        await asyncio.sleep(0.001)
        if not reading.done():
            reading.cancel()
            given_up += 1
            # What has come by now is looked at before anybody else reads.
            time.sleep(0.003)
            await asyncio.sleep(0)
            continue
        if not reading.result():
            break
        pieces.append(reading.result())
    await s.write(b''.join(pieces) + b' %d' % (given_up > 0))
"""
    with python.begin(code, "POST", headers={"transfer-encoding": "chunked"}, end=False) as connection:
        for number in range(200):
            connection.sock.sendall(b"4\r\n%04d\r\n" % number)
            time.sleep(number % 7 / 1000)
        connection.sock.sendall(b"0\r\n\r\n")
        whole = b"".join(b"%04d" % number for number in range(200))
        assert connection.answer().body == whole + b" 1"


def said_of_abc(python: Runtime, code: str, raw: bool) -> bytes:
    """Send `abc` once the program has printed something, over an upgraded connection or not; return what it answers."""
    if raw:
        with python.upgrade(code) as connection:
            connection.read_until(b"\r\n\r\n")
            assert python.records()
            connection.sock.sendall(b"abc")
            return connection.read_until(b"abc")
    with python.begin(code, "POST", headers={"transfer-encoding": "chunked"}, end=False) as connection:
        assert python.records()
        connection.sock.sendall(b"3\r\nabc\r\n0\r\n\r\n")
        return connection.answer().body


@pytest.mark.parametrize("raw", [False, True])
def test_a_read_whose_time_is_over_as_something_comes_loses_nothing(python: Runtime, raw: bool) -> None:
    code = f"""
import asyncio, time
async def main(c, q, s):
    source = q.upgrade if {raw} else q
    if {raw}:
        await source.write('HTTP/1.1 101 Switching Protocols\\r\\nupgrade: echo\\r\\nconnection: Upgrade\\r\\n\\r\\n')
    async def timed():
        async with asyncio.timeout(0.1):
            return await source.read()
    reading = asyncio.ensure_future(timed())
    await asyncio.sleep(0.01)
    print('reading')
    # Both are due when the loop goes on.
    time.sleep(0.5)
    try:
        data = await reading
    except TimeoutError:
        data = b'later ' + await source.read()
    await (source if {raw} else s).write(data)
"""
    assert said_of_abc(python, code, raw) == b"later abc"


@pytest.mark.parametrize("raw", [False, True])
def test_a_second_read_at_once_ends_the_first_with_an_error(python: Runtime, raw: bool) -> None:
    code = f"""
import asyncio
async def main(c, q, s):
    source = q.upgrade if {raw} else q
    if {raw}:
        await source.write('HTTP/1.1 101 Switching Protocols\\r\\nupgrade: echo\\r\\nconnection: Upgrade\\r\\n\\r\\n')
    first = asyncio.ensure_future(source.read())
    await asyncio.sleep(0)
    second = asyncio.ensure_future(source.read())
    await asyncio.sleep(0)
    print('both')
    [told, data] = await asyncio.gather(first, second, return_exceptions=True)
    text = repr(told) + data.decode()
    await (source if {raw} else s).write(text)
"""
    told = b"RuntimeError('another read() was begun while this one waited: let one at a time read')abc"
    assert said_of_abc(python, code, raw) == told


@pytest.mark.parametrize("shape", ["context", "context, request, response"])
def test_a_class_that_raises_when_it_is_looked_at_costs_no_thread(python: Runtime, shape: str) -> None:
    code = f"""
class Meta(type):
    def __getattribute__(cls, name):
        raise RuntimeError('not mine')
class Odd(metaclass=Meta):
    pass
def main({shape}):
    return Odd()
"""
    for _ in range(40):
        assert python.call(code).status == (400 if shape == "context" else 200)
    assert python.call(OK).body == b'"ok"'


@pytest.mark.parametrize("word", ["def", "async def"])
def test_server_sent_events_come_one_by_one(python: Runtime, word: str) -> None:
    wait, sleep = ("await ", "await asyncio.sleep") if word == "async def" else ("", "time.sleep")
    code = f"""
import asyncio, time
seen = 0
{word} main(c, q, s):
    global seen
    if 'seen' in c.query:
        seen += 1
        return
    s.headers['content-type'] = 'text/event-stream'
    for n in (1, 2, 3):
        {wait}s.write(f'data: {{n}}\\n\\n')
        while seen < n:
            {sleep}(0.01)
"""
    with python.begin(code) as connection:
        assert isinstance(connection.event(), h11.Response)
        for n in (1, 2, 3):
            event = connection.event()
            assert bytes(event.data) == b"data: %d\n\n" % n
            assert python.call(code, target="/acme?seen=1").status == 200


@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_program_that_writes_to_a_client_that_went_away_is_told(python: Runtime, word: str) -> None:
    wait, sleep = ("await ", "await asyncio.sleep") if word == "async def" else ("", "time.sleep")
    code = f"""
import asyncio, time
{word} main(c, q, s):
    try:
        while True:
            {wait}s.write('x')
            {sleep}(0.01)
    finally:
        print('gone')
"""
    with python.begin(code) as connection:
        connection.sock.recv(1000)
    assert python.records() == [Record(30, "req-1", "gone")]
    time.sleep(0.1)
    assert python.read_frames() == b""


@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_program_that_reads_from_a_client_that_went_away_is_told(python: Runtime, word: str) -> None:
    wait = "await " if word == "async def" else ""
    code = (
        f"{word} main(c, q, s):\n    try:\n        {wait}q.body()\n    except ConnectionError as e:\n        print(e)"
    )
    with python.begin(code, "POST", headers={"content-length": "5"}, end=False) as connection:
        connection.sock.sendall(b"two")
        time.sleep(0.05)
    assert python.records() == [Record(30, "req-1", "the client went away before the end of its body")]


@pytest.mark.parametrize("last", [b"", b"end"])
@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_program_that_reads_when_its_call_has_failed_elsewhere_is_told(
    python: Runtime, word: str, last: bytes
) -> None:
    wait, sleep = ("await ", "await asyncio.sleep") if word == "async def" else ("", "time.sleep")
    code = f"""
import asyncio, threading, time
{word} main(c, q, s):
    threading.Thread(target=lambda: 1 / 0).start()
    try:
        {wait}q.body()
    except ConnectionError:
        {sleep}(0.2)
        {wait}q.read()
    finally:
        print('told')
"""
    with python.begin(code, "POST", headers={"content-length": "6"}, end=False) as connection:
        connection.sock.sendall(b"two")
        assert connection.answer().json["reason"] == "async_exception"
        # Its last bytes do not make whole what has been thrown away.
        connection.sock.sendall(last)
        failed, told = python.records(lambda found: len(found) == 2)
    assert failed.level == 50
    assert told == Record(30, "req-1", "told")
    time.sleep(0.1)
    assert python.read_frames() == b""


def test_a_client_that_goes_away_frees_its_call(start_python: StartRuntime) -> None:
    python = start_python({"SANDPOST_PROGRAMS": "1"})
    code = "import asyncio\nasync def main(c):\n    await asyncio.sleep(0 if 'now' in c.query else 100)\n    return 1"
    with python.begin(code):
        pass
    deadline = time.monotonic() + 5
    head = {"x-sandpost-op": "call", "x-sandpost-code": code_hash(code)}
    # Once the call is over its program can be unloaded.
    while python.request("GET", "/a?now=1", head).status != 404:
        assert time.monotonic() < deadline
        assert python.call(f"def main(c):\n    return {time.monotonic_ns()}").status == 200


# --- upgrades -----------------------------------------------------------------------------------------------

RAW_ECHO = """
{word} main(context, request, response):
    if request.upgrade is None:
        response.status = 426
        return
    socket = request.upgrade
    {wait}socket.write('HTTP/1.1 101 Switching Protocols\\r\\nupgrade: echo\\r\\nconnection: Upgrade\\r\\n\\r\\n')
    while data := {wait}socket.read():
        print('got', data.decode())
        if data == b'end':
            break
        if data == b'fail':
            raise ValueError('in it')
        {wait}socket.write(data.upper())
    print('closed')
"""


@pytest.mark.parametrize(("word", "wait"), [("def", ""), ("async def", "await ")])
def test_a_request_program_takes_an_upgrade(python: Runtime, word: str, wait: str) -> None:
    code = RAW_ECHO.format(word=word, wait=wait)
    with python.upgrade(code, b"early") as connection:
        assert connection.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert connection.read_until(b"EARLY") == b"EARLY"
        connection.sock.sendall(b"later")
        assert connection.read_until(b"LATER") == b"LATER"
        assert python.call(OK).body == b'"ok"'
    records = python.records(lambda found: len(found) == 3)
    assert records == [Record(30, "ws", "got early"), Record(30, "ws", "got later"), Record(30, "ws", "closed")]


@pytest.mark.parametrize(("word", "wait"), [("def", ""), ("async def", "await ")])
@pytest.mark.parametrize("last", [b"end", b"fail"])
def test_the_end_of_a_program_ends_its_upgraded_connection(python: Runtime, word: str, wait: str, last: bytes) -> None:
    with python.upgrade(RAW_ECHO.format(word=word, wait=wait)) as connection:
        connection.read_until(b"\r\n\r\n")
        connection.sock.sendall(last)
        assert connection.sock.recv(1) == b""
    found = python.records(lambda records: len(records) == 2)
    assert found[1].req_id == "ws"
    assert ("in it" in found[1].text) == (last == b"fail")
    assert python.probe().status == 204


def test_who_reads_an_upgraded_connection_on_hears_that_its_program_ended(python: Runtime) -> None:
    code = """
import threading, time
def main(c, q, s):
    q.upgrade.write('HTTP/1.1 101 Switching Protocols\\r\\nupgrade: echo\\r\\nconnection: Upgrade\\r\\n\\r\\n')
    threading.Thread(target=lambda: print(q.upgrade.read())).start()
    time.sleep(0.1)
"""
    with python.upgrade(code) as connection:
        connection.read_until(b"\r\n\r\n")
        assert connection.sock.recv(1) == b""
        assert python.records() == [Record(30, "ws", "b''")]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (OK, 200),
        (AOK, 200),
        ("def main(c, q, s):\n    s.status = 426\n    s.write('no')", 426),
        ("def main(c, q, s):\n    raise ValueError", 500),
        ("x = 1", 400),
    ],
)
def test_an_upgrade_that_is_not_taken_gets_an_ordinary_answer(python: Runtime, code: str, status: int) -> None:
    with python.upgrade(code) as connection:
        received = b""
        while chunk := connection.sock.recv(65536):
            received += chunk
    assert received.startswith(b"HTTP/1.1 %d " % status)
    assert received.count(b"HTTP/1.1") == 1
    assert b"connection: close\r\n" in received.lower()


def test_a_plain_request_is_told_from_an_upgrade(python: Runtime) -> None:
    assert python.call(RAW_ECHO.format(word="def", wait="")).status == 426

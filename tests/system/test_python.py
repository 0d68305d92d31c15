"""Programs in Python through the whole platform: beside a tenant's JavaScript, within the same limits."""

import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.sync.client import connect

from support.http import request
from support.logs import until_said
from support.platform import Platform
from support.waiting import until

PYTHON = {"Content-Type": "text/x-python"}
HELLO = "def main(context):\n    return 'Hello from Python'"
JAVASCRIPT = "return function (cb) { cb(null, 'Hello from JavaScript') }"
ECHO = "def main(context, request, response):\n    for piece in request:\n        response.write(piece)"
SOCKET = """async def app(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": scope["root_path"] + " " + message["text"]})
"""


def phases(running: Platform, tenant: str) -> dict[str, str]:
    """The runtimes of a tenant's sandboxes, each with its sandbox."""
    found = running.api("GET", "/api/sandboxes").json["sandboxes"]
    return {one["runtime"]: one["sandbox_id"] for one in found if (one["tenant"], one["phase"]) == (tenant, "assigned")}


def test_a_tenant_has_both_languages_and_the_end_of_one_is_not_the_others(running: Platform) -> None:
    keeps = "let n = 0; return function (cb) { cb(null, ++n) }"
    assert running.call("both", keeps).json == 1
    assert running.call("both", HELLO, headers=PYTHON).json == "Hello from Python"
    first = phases(running, "both")
    assert set(first) == {"node", "python"}
    answer = running.call("both", "import os\ndef main(context):\n    os._exit(3)", headers=PYTHON)
    assert (answer.status, answer.json["reason"]) == (500, "exit")
    assert running.call("both", keeps).json == 2
    assert running.call("both", HELLO, headers=PYTHON).json == "Hello from Python"
    second = phases(running, "both")
    assert second["node"] == first["node"]
    assert second["python"] != first["python"]
    listed = running.command("ps").stdout
    assert all(one in listed for one in second.values())
    assert running.api("GET", "/api/status").json["controller"]["runtimes"]["python"]["assigned"] >= 1


def test_neither_sees_the_others_files(running: Platform) -> None:
    assert (
        running.call("files", "return cb => { require('fs').writeFileSync('/tmp/mine', '1'); cb(null, 1) }").json == 1
    )
    look = "import os\ndef main(context):\n    return os.listdir('/tmp')"
    assert running.call("files", look, headers=PYTHON).json == []


def test_a_program_is_called_by_its_hash_in_the_tenants_next_sandbox(running: Platform) -> None:
    code = running.call("hash", HELLO, headers=PYTHON).headers["x-sandpost-code"]
    running.call("hash", JAVASCRIPT)
    for _ in range(2):
        answer = running.call("hash", "", f"webtask_code={code}")
        assert answer.json == "Hello from Python"
        assert running.call("hash", "import os\ndef main(c): os.abort()", headers=PYTHON).json["reason"] == "crash"


def test_bodies_stream_both_ways(running: Platform) -> None:
    code = running.call("stream", ECHO, headers=PYTHON).headers["x-sandpost-code"]
    body = secrets.token_bytes(5 << 20)
    answer = request(running.port, "PUT", f"/stream/a/b?webtask_code={code}&key={running.key}", body)
    assert answer.status == 200
    assert answer.body == body


def test_an_applications_websocket_is_the_tenants(running: Platform) -> None:
    code = running.call("socket", SOCKET, headers=PYTHON).headers["x-sandpost-code"]
    place = f"ws://127.0.0.1:{running.port}/socket/x?webtask_code={code}&key={running.key}"
    with connect(place, compression=None) as websocket:
        for n in range(10):
            websocket.send(str(n))
            assert websocket.recv(timeout=5) == f"/socket {n}"


def test_what_it_prints_and_logs_is_in_the_tenants_log_with_its_call(running: Platform) -> None:
    program = (
        "import logging\nlogging.basicConfig(level=logging.INFO, format='%(message)s')\n"
        "def main(context):\n    print('printed')\n    logging.warning('warned')\n    return context.id"
    )
    call = running.call("says", program, headers=PYTHON).json
    printed, warned = (until_said(running.host.logs_dir, "says", text) for text in ("printed", "warned"))
    assert (printed["level"], printed["req_id"]) == (30, call)
    assert (warned["level"], warned["req_id"]) == (40, call)


@pytest.mark.parametrize(
    ("program", "status", "reason"),
    [
        ("def main(c):\n    kept = []\n    while True:\n        kept.append(b'x' * (1 << 20))", 500, "memory"),
        ("async def main(c):\n    while True:\n        pass", 500, "blocked"),
        ("import sys\ndef main(c):\n    sys.exit(2)", 500, "exit"),
        ("import ctypes\ndef main(c):\n    ctypes.string_at(1)", 500, "crash"),
        ("import time\ndef main(c):\n    time.sleep(30)", 504, "deadline"),
        ("import asyncio\nasync def main(c):\n    await asyncio.sleep(30)", 504, "deadline"),
    ],
)
def test_an_end_has_its_word_while_javascript_goes_on(
    running: Platform, program: str, status: int, reason: str
) -> None:
    tenant = f"ends-{reason}-{len(program)}"
    running.set_tenant(tenant, limits={"deadline": "6s", "blocked_after": "3s"})
    keeps = "let n = 0; return function (cb) { cb(null, ++n) }"
    assert running.call(tenant, keeps).json == 1
    answer = running.call(tenant, program, headers=PYTHON)
    assert (answer.status, answer.json["reason"]) == (status, reason)
    assert running.call(tenant, keeps).json == 2
    assert running.call(tenant, HELLO, headers=PYTHON).json == "Hello from Python"


def test_a_thread_that_burns_on_after_its_deadline_ends_the_sandbox(running: Platform) -> None:
    running.set_tenant("burns", limits={"deadline": "1s"})
    answer = running.call("burns", "def main(c):\n    while True:\n        pass", headers=PYTHON)
    assert answer.json["reason"] == "deadline"
    until_said(running.host.logs_dir, "burns", "blocked: a thread ran on")
    assert running.call("burns", HELLO, headers=PYTHON).json == "Hello from Python"


def test_threads_that_burn_on_with_a_tenth_of_a_core_end_the_sandbox_beside_a_call_that_waits(
    running: Platform,
) -> None:
    running.set_tenant("tenth", limits={"deadline": "30s", "cpu": 0.1, "blocked_after": "20s"})
    waits = "import time\ndef main(context):\n    time.sleep(25)"
    assert running.call("tenth", HELLO, headers=PYTHON).status == 200
    with ThreadPoolExecutor(9) as calls:
        neighbour = calls.submit(running.call, "tenth", waits, headers=PYTHON)
        time.sleep(1)
        running.set_tenant("tenth", limits={"deadline": "4s", "cpu": 0.1, "blocked_after": "4s"})
        burning = [
            calls.submit(running.call, "tenth", "def main(c):\n    while True:\n        pass", headers=PYTHON)
            for _ in range(8)
        ]
        assert {call.result().status for call in burning} <= {502, 504}
        assert neighbour.result().json["reason"] == "blocked"
    until_said(running.host.logs_dir, "tenth", "blocked: a thread ran on")


def test_a_sandbox_of_its_own_for_each_call(running: Platform) -> None:
    running.set_tenant("alone", isolation="per_request")
    count = "n = 0\ndef main(context):\n    global n\n    n += 1\n    return n"
    assert [running.call("alone", count, headers=PYTHON).json for _ in range(2)] == [1, 1]


def test_a_pool_of_python_comes_with_the_demand(running: Platform) -> None:
    for n in range(3):
        assert running.call(f"demand-{n}", HELLO, headers=PYTHON).status == 200
    until(
        lambda: running.api("GET", "/api/status").json["controller"]["runtimes"]["python"]["pool"] >= 1,
        "a pool of Python",
        20,
    )
    began = time.monotonic()
    assert running.call("demand-last", HELLO, headers=PYTHON).status == 200
    assert time.monotonic() - began < 5


def test_a_deep_recursion_a_forgotten_coroutine_and_null_bytes_are_told(running: Platform) -> None:
    deep = "import sys\nsys.setrecursionlimit(10_000_000)\ndef main(c, n=0):\n    return main(c, n + 1)"
    answer = running.call("deep", deep, headers=PYTHON)
    assert answer.json["reason"] in {"memory", "crash", "sync_exception"}
    forgotten = "async def other():\n    pass\ndef main(context):\n    other()\n    return json.dumps(1)\nimport json"
    assert running.call("forgets", forgotten, headers=PYTHON).body == json.dumps("1").encode()
    until_said(running.host.logs_dir, "forgets", "was never awaited")

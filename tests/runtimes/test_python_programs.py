"""Loaded programs in Python: how many stay, which goes, and what unloading frees."""

import pytest

from support.runtime import Runtime, StartRuntime, code_hash

MiB = 1 << 20


def program(n: int) -> str:
    return f"def main(context):\n    return {n + 1}"


def test_the_least_recently_called_program_goes_first(start_python: StartRuntime) -> None:
    python = start_python({"SANDPOST_PROGRAMS": "3"})
    for n in (0, 1, 2):
        python.call(program(n))
    python.call(program(0))
    python.call(program(3))
    assert [python.is_loaded(program(n)) for n in (0, 2, 3)] == [True, True, True]
    assert not python.is_loaded(program(1))


def test_a_program_with_a_call_in_flight_stays(start_python: StartRuntime) -> None:
    python = start_python({"SANDPOST_PROGRAMS": "2"})
    waits = "import threading\ngo = threading.Event()\ndef main(c):\n    if 'go' in c.data:\n        go.set()\n    go.wait()\n    return 'waited'"
    with python.begin(waits) as connection:
        for n in range(10):
            assert python.call(program(n)).status == 200
        assert python.call(waits, target="/a?go=1").status == 200
        assert connection.answer().body == b'"waited"'


def test_more_calls_at_once_than_programs_may_stay(start_python: StartRuntime) -> None:
    python = start_python({"SANDPOST_PROGRAMS": "1"})
    codes = [f"import time\ndef main(c):\n    time.sleep(0.2)\n    return {n + 1}" for n in range(10)]
    connections = [python.begin(code) for code in codes]
    try:
        assert [connection.answer().json for connection in connections] == list(range(1, 11))
    finally:
        for connection in connections:
            connection.sock.close()
    python.call(program(0))
    assert not any(python.is_loaded(code) for code in codes)


def test_programs_are_bounded_by_their_bytes_too(start_python: StartRuntime) -> None:
    python = start_python({"SANDPOST_PROGRAM_BYTES": "250000"})
    large = [f"#{'x' * 100_000}\n{program(n)}" for n in range(3)]
    for code in large:
        python.call(code)
    assert [python.is_loaded(code) for code in large] == [False, True, True]
    huge = f"#{'x' * 300_000}\n{program(9)}"
    assert python.call(huge).body == b"10"
    assert python.is_loaded(huge)
    assert not python.is_loaded(large[2])


def test_a_program_that_was_unloaded_is_run_anew(start_python: StartRuntime) -> None:
    python = start_python({"SANDPOST_PROGRAMS": "1"})
    counts = "n = 0\ndef main(c):\n    global n\n    n += 1\n    return n"
    assert [python.call(counts).body for _ in range(2)] == [b"1", b"2"]
    python.call(program(0))
    python.load(counts)
    assert python.call(counts).body == b"1"


def test_the_work_of_an_unloaded_program_goes_on(start_python: StartRuntime) -> None:
    python = start_python({"SANDPOST_PROGRAMS": "1"})
    code = """
import asyncio, sys
sys.ticks = 0
async def tick():
    while True:
        sys.ticks += 1
        await asyncio.sleep(0.005)
async def main(c):
    sys.task = asyncio.create_task(tick())"""
    python.call(code)
    python.call("import time\ndef main(c):\n    time.sleep(0.1)")
    assert python.call("import sys\ndef main(c):\n    return sys.ticks").json >= 2


def test_unloading_frees_memory_and_asks_for_no_successor(start_python: StartRuntime) -> None:
    python = start_python({"SANDPOST_PROGRAMS": "32"})
    asked = 0
    with python.connect() as connection:
        for n in range(2000):
            code = f"text = 'x' * {n}\nclass A:\n    def f(self): return A\ndef main(c):\n    return len(text) + 1"
            load = {"x-sandpost-op": "load", "x-sandpost-code": code_hash(code)}
            connection.send("PUT", "/", load, code.encode())
            assert connection.answer().status == 204
            connection.send("GET", "/a", {**load, "x-sandpost-op": "call"})
            answer = connection.answer()
            assert answer.json == n + 1
            asked += "x-sandpost-replace" in answer.headers
            if n == 500:
                before = python.memory()
    assert asked == 0
    assert python.memory() - before < 8 * MiB


def test_large_programs_leave_little_garbage(start_python: StartRuntime) -> None:
    python = start_python()
    peak = 0
    for n in range(60):
        # One letter that takes two bytes makes the whole text so.
        code = f"def main(c):\n    return {n + 1} # \u6f22".encode().ljust(MiB, b"x")
        assert python.load(code).status == 204
        assert python.load(code + b"\n = 1").status == 400
        peak = max(peak, python.memory())
    # 32 MiB are the text of those that stay.
    assert peak < 80 * MiB
    assert python.call(program(0)).body == b"1"


def test_a_successor_is_asked_for_when_unloading_frees_nothing(start_python: StartRuntime) -> None:
    python = start_python({"SANDPOST_PROGRAMS": "16"})
    seen = ""
    for n in range(400):
        code = f"import sys\nheld = [{n}.5] * 20000\nsys.held = [*getattr(sys, 'held', ()), held]\ndef main(c):\n    return 1"
        answer = python.call(code)
        assert answer.status == 200
        seen = answer.headers.get("x-sandpost-replace", "")
        if seen:
            break
    assert seen == "1"
    # Then every answer says so, failures and probes too, and the sandbox serves on.
    assert python.call("def main(c):\n    1 / 0").headers["x-sandpost-replace"] == "1"
    assert python.call("def main(c, q, s):\n    pass").headers["x-sandpost-replace"] == "1"
    assert python.probe().headers["x-sandpost-replace"] == "1"


def test_what_waits_in_a_pool_is_small(python: Runtime) -> None:
    assert python.request("GET", "/", {"x-sandpost-op": "warm"}).status == 204
    assert python.memory() < 16 * MiB


@pytest.mark.parametrize("value", ["x", "-1", "1.5", " "])
def test_a_setting_that_is_no_number_stops_the_start(start_python: StartRuntime, value: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="SANDPOST_PROGRAMS must be a whole number"):
        start_python({"SANDPOST_PROGRAMS": value})

"""Loaded programs: how many stay, which goes, and what unloading frees."""

import pytest

from support.runtime import StartRuntime, code_hash

MiB = 1 << 20


def program(n: int) -> str:
    return f"return cb => cb(null, {n + 1})"


def test_the_least_recently_called_program_goes_first(start_runtime: StartRuntime) -> None:
    runtime = start_runtime({"SANDPOST_PROGRAMS": "3"})
    for n in (0, 1, 2):
        runtime.call(program(n))
    runtime.call(program(0))
    runtime.call(program(3))
    assert [runtime.is_loaded(program(n)) for n in (0, 2, 3)] == [True, True, True]
    assert not runtime.is_loaded(program(1))


def test_a_program_with_a_call_in_flight_stays(start_runtime: StartRuntime) -> None:
    runtime = start_runtime({"SANDPOST_PROGRAMS": "2"})
    waits = "return (c, cb) => { if (c.data.go) { go(); cb(); } else globalThis.go = () => cb(null, 'waited'); }"
    with runtime.begin(waits) as connection:
        for n in range(10):
            assert runtime.call(program(n)).status == 200
        assert runtime.call(waits, target="/a?go=1").body == b"{}"
        assert connection.answer().body == b'"waited"'


def test_more_calls_at_once_than_programs_may_stay(start_runtime: StartRuntime) -> None:
    runtime = start_runtime({"SANDPOST_PROGRAMS": "1"})
    codes = [f"return cb => setTimeout(cb, 100, null, {n + 1})" for n in range(10)]
    connections = [runtime.begin(code) for code in codes]
    try:
        assert [connection.answer().json for connection in connections] == list(range(1, 11))
    finally:
        for connection in connections:
            connection.sock.close()
    runtime.call(program(0))
    assert not any(runtime.is_loaded(code) for code in codes)


def test_programs_are_bounded_by_their_bytes_too(start_runtime: StartRuntime) -> None:
    runtime = start_runtime({"SANDPOST_PROGRAM_BYTES": "250000"})
    large = [f"/*{'x' * 100_000}*/ return cb => cb(null, {n + 1})" for n in range(3)]
    for code in large:
        runtime.call(code)
    assert [runtime.is_loaded(code) for code in large] == [False, True, True]
    huge = f"/*{'x' * 300_000}*/ return cb => cb(null, 'huge')"
    assert runtime.call(huge).body == b'"huge"'
    assert runtime.is_loaded(huge)
    assert not runtime.is_loaded(large[2])


def test_a_program_that_was_unloaded_is_instantiated_anew(start_runtime: StartRuntime) -> None:
    runtime = start_runtime({"SANDPOST_PROGRAMS": "1"})
    counts = "let n = 0; return cb => cb(null, ++n)"
    assert [runtime.call(counts).body for _ in range(2)] == [b"1", b"2"]
    runtime.call(program(0))
    runtime.load(counts)
    assert runtime.call(counts).body == b"1"


def test_the_work_of_an_unloaded_program_goes_on(start_runtime: StartRuntime) -> None:
    runtime = start_runtime({"SANDPOST_PROGRAMS": "1"})
    runtime.call("setInterval(() => { globalThis.ticks = (globalThis.ticks || 0) + 1; }, 5); return cb => cb()")
    runtime.call(program(0))
    runtime.call("return cb => setTimeout(cb, 30)")
    assert runtime.call("return cb => cb(null, ticks)").json >= 2


def test_unloading_frees_memory_and_asks_for_no_successor(start_runtime: StartRuntime) -> None:
    runtime = start_runtime({"SANDPOST_PROGRAMS": "32"})
    asked = 0
    with runtime.connect() as connection:
        for n in range(3000):
            code = f"const text = 'x'.repeat({n}); return cb => cb(null, text.length + 1)"
            load = {"x-sandpost-op": "load", "x-sandpost-code": code_hash(code)}
            connection.send("PUT", "/", load, code.encode())
            assert connection.answer().status == 204
            connection.send("GET", "/a", {**load, "x-sandpost-op": "call"})
            answer = connection.answer()
            assert answer.json == n + 1
            asked += "x-sandpost-replace" in answer.headers
            if n == 1000:
                before = runtime.memory()
    assert asked == 0
    assert runtime.memory() - before < 12 * MiB


def test_large_programs_leave_little_garbage(start_runtime: StartRuntime) -> None:
    runtime = start_runtime()
    peak = 0
    for n in range(100):
        # One letter that takes two bytes makes the whole text so.
        code = f"return cb => cb(null, {n + 1}); // \u6f22".encode().ljust(MiB, b"x")
        assert runtime.load(code).status == 204
        assert runtime.load(code + b"\nlet a; let a;").status == 400
        peak = max(peak, runtime.memory())
    # 32 MiB are the text of those that stay.
    assert peak < 100 * MiB
    assert runtime.call(program(0)).body == b"1"


def test_a_successor_is_asked_for_when_unloading_frees_nothing(start_runtime: StartRuntime) -> None:
    runtime = start_runtime({"SANDPOST_PROGRAMS": "16"})
    seen = ""
    for n in range(400):
        code = f"const held = new Array(20000).fill({n}); setInterval(() => held, 1e6); return cb => cb(null, 1)"
        answer = runtime.call(code)
        assert answer.status == 200
        seen = answer.headers.get("x-sandpost-replace", "")
        if seen:
            break
    assert seen == "1"
    # Then every answer says so, failures and probes too, and the sandbox serves on.
    assert runtime.call("return cb => cb('e')").headers["x-sandpost-replace"] == "1"
    assert runtime.call("return (c, q, s) => s.end()").headers["x-sandpost-replace"] == "1"
    assert runtime.probe().headers["x-sandpost-replace"] == "1"


@pytest.mark.long
def test_twenty_thousand_programs_keep_memory_flat(start_runtime: StartRuntime) -> None:
    runtime = start_runtime()
    at: dict[int, int] = {}
    with runtime.connect() as connection:
        for n in range(20_001):
            code = f"return function (cb) {{ cb(null, {n} + 1); }}"
            load = {"x-sandpost-op": "load", "x-sandpost-code": code_hash(code)}
            connection.send("PUT", "/", load, code.encode())
            assert connection.answer().status == 204
            connection.send("GET", "/a", {**load, "x-sandpost-op": "call"})
            answer = connection.answer()
            assert answer.json == n + 1
            assert "x-sandpost-replace" not in answer.headers
            if n % 5000 == 0:
                at[n] = runtime.memory()
    assert at[20_000] < 48 * MiB
    assert at[20_000] - at[5000] < 8 * MiB, at

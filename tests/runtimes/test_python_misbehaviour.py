"""Programs in Python that misbehave: one answer each, and the neighbours are served."""

import time

import pytest

from support.runtime import Record, Runtime

OK = "def main(context):\n    return 'ok'"
AOK = "async def main(context):\n    return 'ok'"


def assert_serves(python: Runtime) -> None:
    for code in (OK, AOK):
        assert python.call(code, req_id="neighbour").body == b'"ok"'


@pytest.mark.parametrize(
    ("raised", "details"),
    [
        ("Exception", "Exception"), ("Exception('a', 1)", "Exception: ('a', 1)"), ("KeyboardInterrupt('k')", "KeyboardInterrupt: k"),
        ("BaseException('b')", "BaseException: b"), ("MemoryError()", "MemoryError"), ("StopIteration(1)", None),
        ("asyncio.CancelledError()", "CancelledError"), ("Bad()", "Bad: [a value that cannot be shown]"),
        ("Liar()", "Liar: lie"), ("'text'", "TypeError: exceptions must derive from BaseException"),
        ("ExceptionGroup('g', [ValueError(1), TypeError(2)])", "ExceptionGroup: g (2 sub-exceptions)"),
        ("OSError(2, 'No such file')", "FileNotFoundError: [Errno 2] No such file"), ("Getter()", "Getter: get"),
        ("GeneratorExit('g')", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("word", ["def", "async def"])
def test_whatever_is_raised_is_told(python: Runtime, word: str, raised: str, details: str | None) -> None:
    code = f"""
import asyncio
class Bad(Exception):
    def __str__(self): raise SystemExit(1)
    __repr__ = __str__
class Text(str):
    def __len__(self): raise SystemExit(1)
    def __format__(self, spec): raise SystemExit(1)
class Liar(Exception):
    def __str__(self): return Text('lie')
class Getter(Exception):
    def __str__(self): return 'get'
    def __getattribute__(self, name): raise SystemExit(1)
{word} main(context):
    raise {raised}"""
    answer = python.call(code)
    assert answer.status in {400, 500}, answer
    if details is not None:
        assert answer.json["details"] == details
    assert python.records()[0].level == 50
    assert_serves(python)


def test_an_exception_tells_its_cause_without_the_runtimes_frames(python: Runtime) -> None:
    code = (
        "def main(c):\n    try:\n        1 / 0\n    except ArithmeticError as e:\n        raise ValueError('v') from e"
    )
    stack = python.call(code).json["stack"]
    assert "ZeroDivisionError: division by zero\n\nThe above exception was the direct cause" in stack
    assert stack.endswith("ValueError: v")
    assert stack.count('File "') == stack.count('File "webtask.py"') == 2


def test_names_of_a_programs_own_are_as_it_knows_them(python: Runtime) -> None:
    stack = python.call("class Mine(Exception): pass\ndef main(c):\n    raise Mine('m')").json["stack"]
    assert stack.endswith("\nMine: m")


@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_recursion_of_a_million_is_an_error(python: Runtime, word: str) -> None:
    code = f"def down(n):\n    return n and down(n - 1)\n{word} main(c):\n    return down(1_000_000)"
    body = python.call(code).json
    assert (body["name"], body["reason"]) == ("RecursionError", "sync_exception" if word == "def" else "script_error")
    assert len(body["stack"]) < 2000
    assert_serves(python)


def test_a_coroutine_that_is_never_awaited_is_a_warning(python: Runtime) -> None:
    assert python.call("async def work(): pass\ndef main(c):\n    work()\n    return 'done'").body == b'"done"'
    assert python.records() == [Record(40, "req-1", "webtask.py:3: RuntimeWarning: coroutine 'work' was never awaited")]


def test_a_failure_is_charged_to_its_own_call(python: Runtime) -> None:
    slow = "import asyncio\nasync def main(c):\n    await asyncio.sleep(0.1)\n    return c.id"
    bad = "import asyncio\nasync def boom(): raise ValueError\nasync def main(c):\n    asyncio.create_task(boom())\n    await asyncio.sleep(9)"
    with (
        python.begin(slow, req_id="a") as a,
        python.begin(bad, req_id="b") as b,
        python.begin(slow, req_id="c") as c,
    ):
        assert b.answer().json["req_id"] == "b"
        assert (a.answer().json, c.answer().json) == ("a", "c")
    assert [record.req_id for record in python.records()] == ["b"]


@pytest.mark.parametrize("later", ["asyncio.create_task(boom())", "threading.Thread(target=fail).start()"])
def test_what_fails_after_the_answer_is_a_record(python: Runtime, later: str) -> None:
    code = f"""
import asyncio, threading, time
def fail():
    time.sleep(0.05)
    raise ValueError('after')
async def boom():
    await asyncio.sleep(0.05)
    raise ValueError('after')
async def main(c):
    {later}
    return 1"""
    with python.begin(code, req_id="late") as connection:
        assert connection.answer().body == b"1"
        (record,) = python.records()
        assert (record.level, record.req_id) == (50, "late")
        assert record.text.endswith("ValueError: after")
        connection.assert_one_answer()


def test_an_error_after_its_client_has_gone_is_a_record(python: Runtime) -> None:
    with python.begin("import time\ndef main(c):\n    time.sleep(0.2)\n    raise ValueError('for nobody')"):
        time.sleep(0.1)
    (record,) = python.records()
    assert (record.level, record.req_id) == (50, "req-1")
    assert "ValueError: for nobody" in record.text


def test_an_error_that_asyncio_was_told_of_is_charged_once(python: Runtime) -> None:
    code = "import asyncio\nasync def boom(): raise ValueError('g')\nasync def main(c):\n    return await asyncio.gather(boom())"
    assert python.call(code).json["message"] == "g"
    assert len(python.records()) == 1


@pytest.mark.parametrize(
    "stop",
    [
        "asyncio.get_running_loop().stop()",
        "asyncio.current_task().cancel(); await asyncio.sleep(1)",
        "[t.cancel() for t in asyncio.all_tasks()]; await asyncio.sleep(1)",
        "asyncio.get_running_loop().set_exception_handler(lambda *a: 1 / 0)",
        "asyncio.get_running_loop().close()",
        "asyncio.set_event_loop(None)",
    ],
)
def test_the_loop_turns_on_whatever_is_done_to_it(python: Runtime, stop: str) -> None:
    answer = python.call(f"import asyncio\nasync def main(c):\n    {stop}\n    return 1")
    assert answer.status in {200, 400}, answer
    assert_serves(python)


@pytest.mark.parametrize(
    "replaced",
    [
        "sys.stdout = None; sys.stderr = None", "sys.stdout.close(); sys.stderr.close()", "builtins.print = None", "json.dumps = None",
        "sys.modules.clear()", "sys.modules.pop('linecache', None); sys.modules['traceback'] = None", "sys.setrecursionlimit(60)",
        "sys.excepthook = None; threading.excepthook = None", "os.write = os.close = os.read = None",
        "sys.meta_path.clear(); sys.path.clear()",
        "socket.socket.send = None", "logging.shutdown()", "gc.disable()", "signal.setitimer = None", "asyncio.Task = None",
    ],
)  # fmt: skip
def test_replaced_functions_of_python_reach_no_neighbour(python: Runtime, replaced: str) -> None:
    bad = f"""
import asyncio, builtins, gc, json, logging, os, signal, socket, sys, threading, time, traceback
def main(c):
    {replaced}
    return 'did'"""
    python.call(AOK)
    answer = python.call(bad)
    assert answer.status in {200, 400, 500}, answer
    # Code of programs may miss what another took away; the runtime must not.
    assert python.call("def main(c):\n    return 'plain'").body == b'"plain"'
    assert python.call("def main(c):\n    raise ValueError").status == 500
    assert python.call("async def main(c):\n    return 'plain'").body == b'"plain"'
    assert python.probe().status == 204


def test_a_huge_result_is_answered(python: Runtime) -> None:
    assert len(python.call("def main(c):\n    return 'x' * 50_000_000").body) == 50_000_002
    assert_serves(python)


def test_a_result_that_nobody_takes_holds_nobody_up(python: Runtime) -> None:
    with python.begin("def main(c):\n    return 'x' * 60_000_000"):
        for _ in range(5):
            assert_serves(python)
    assert_serves(python)


def test_a_program_that_is_its_own_module_is_no_other(python: Runtime) -> None:
    code = "import sys\ndef main(c):\n    return [__name__.startswith('webtask_'), sys.modules[__name__].main is main, __file__]"
    assert python.call(code).json == [True, True, "webtask.py"]


def test_descriptors_that_a_program_closes_end_the_process_at_most(python: Runtime) -> None:
    with python.begin("import os\ndef main(c):\n    os.closerange(3, 200)\n    return 1") as connection:
        connection.sock.settimeout(3)
        try:
            connection.sock.recv(100)
        except TimeoutError:
            # The loop has nothing to wait for any more: its probe stays unanswered, which ends the sandbox.
            with pytest.raises((TimeoutError, OSError)):
                python.probe()


def test_a_runtime_that_a_program_has_taken_apart_asks_for_a_successor(python: Runtime) -> None:
    apart = "import codecs\ndef main(context):\n    vars(codecs).clear()\n    return 'done'"
    assert python.call(apart).body == b'"done"'
    broken = python.load("def main(context):\n    return 'another'")
    assert (broken.status, broken.headers["x-sandpost-replace"]) == (400, "1")


def test_a_program_that_does_not_compile_asks_for_no_successor(python: Runtime) -> None:
    for code in ("def", "x = '\0'", "9" * 10_000, "(" * 10_000):
        assert "x-sandpost-replace" not in python.load(code).headers

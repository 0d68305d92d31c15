"""One test a row of "Answers of a run" for programs in Python."""

import pytest

from support.runtime import Record, Runtime


def returns(value: str, before: str = "") -> str:
    return f"{before}\ndef main(context):\n    return {value}\n"


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (returns("'Hello, world!'"), b'"Hello, world!"'),
        (returns("{'a': [1, None, True, 1.5]}"), b'{"a":[1,null,true,1.5]}'),
        ("async def main(context):\n    return [1]", b"[1]"),
        ("import asyncio\nasync def main(context):\n    await asyncio.sleep(0)\n    return context.data['x']", b'"y"'),
        ("main = lambda context: 7", b"7"),
        (returns("'\\u00fc\\U0001F600'"), '"\u00fc\U0001f600"'.encode()),
        (returns("'\\ud800'"), b'"\\ud800"'),
        ("class Main:\n    def __call__(self, context):\n        return 'object'\nmain = Main()", b'"object"'),
        ("class Main:\n    async def __call__(self, context):\n        return 'o'\nmain = Main()", b'"o"'),
        ("import functools\nmain = functools.partial(lambda a, context: a, 5)", b"5"),
        ("async def inner(c):\n    return 'inner'\ndef main(context):\n    return inner(context)", b'"inner"'),
        ("def main(context, more=5):\n    return more", b"5"),
        (
            "import functools\ndef twice(f):\n    return functools.wraps(f)(lambda *a: f(*a) * 2)\n@twice\ndef main(c):\n    return 'ab'",
            b'"abab"',
        ),
    ],
)
def test_a_result_is_bare_json(python: Runtime, code: str, body: bytes) -> None:
    answer = python.call(code, target="/acme?x=y")
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-sandpost-source"] == "webtask"
    assert answer.headers["x-sandpost-wire"] == "1"
    assert "x-sandpost-error" not in answer.headers


@pytest.mark.parametrize("value", ["", "None", "0", "0.0", "''", "False"])
def test_a_falsy_result_is_an_empty_object(python: Runtime, value: str) -> None:
    assert python.call(returns(value)).body == b"{}"


@pytest.mark.parametrize(("value", "body"), [("[]", b"[]"), ("{}", b"{}"), ("()", b"[]"), ("set()", b"[]")])
def test_an_empty_list_or_object_is_a_result(python: Runtime, value: str, body: bytes) -> None:
    assert python.call(returns(value)).body == body


@pytest.mark.parametrize(
    ("before", "value", "seen"),
    [
        (
            "from dataclasses import dataclass, field\n@dataclass\nclass Point:\n    x: int\n    tags: list = field(default_factory=list)\n",
            "[Point(1), Point(2, [Point(3)])]",
            [{"x": 1, "tags": []}, {"x": 2, "tags": [{"x": 3, "tags": []}]}],
        ),
        ("import datetime as d", "d.datetime(2026, 1, 2, 3, 4, 5, tzinfo=d.timezone.utc)", "2026-01-02T03:04:05+00:00"),
        ("import datetime as d", "[d.date(2026, 1, 2), d.time(3, 4)]", ["2026-01-02", "03:04:00"]),
        ("import uuid", "uuid.UUID(int=1)", "00000000-0000-0000-0000-000000000001"),
        ("import decimal", "{'price': decimal.Decimal('1.10')}", {"price": "1.10"}),
        ("import enum\nclass E(enum.Enum):\n    A = 'a'\nclass I(enum.IntEnum):\n    B = 2", "[E.A, I.B]", ["a", 2]),
        ("import collections\nP = collections.namedtuple('P', 'x y')", "P(1, (2, 3))", [1, [2, 3]]),
        ("", "{frozenset([1]).__len__(): {5}}", {"1": [5]}),
        ("import collections", "collections.OrderedDict(a=1)", {"a": 1}),
    ],
)
def test_what_has_one_obvious_form_is_json(python: Runtime, before: str, value: str, seen: object) -> None:
    assert python.call(returns(value, before)).json == seen


@pytest.mark.parametrize(
    "value",
    [
        "object()", "b'bytes'", "1j", "main", "float('nan')", "[float('inf')]", "{(1, 2): 3}", "(x for x in [1])",
        "(lambda a: a.append(a) or a)([])", "__import__('functools').reduce(lambda a, _: [a], range(100000), [])",
        "__import__('datetime').timedelta(1)", "type('B', (str,), {'__len__': lambda s: 1/0})", "Ellipsis",
    ],
)  # fmt: skip
@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_value_that_is_not_serialisable(python: Runtime, value: str, word: str) -> None:
    answer = python.call(f"{word} main(context):\n    return {value}")
    body = answer.failure(400, "not_serializable")
    assert body["error"] == "Error when JSON serializing the result of the Python code."
    python.only_error()
    assert python.call(returns("1")).body == b"1"


def test_a_value_whose_own_code_fails_is_not_serialisable(python: Runtime) -> None:
    before = "import dataclasses\n@dataclasses.dataclass\nclass D:\n    a: int\n    def __getattribute__(self, n):\n        raise SystemError('no')"
    assert python.call(returns("[D(1)]", before)).failure(400, "not_serializable")["message"] == "no"


RAISES = "import asyncio, sys\nclass S(set):\n    def __iter__(self):\n        {}\n{} main(context):\n    return S([1])"


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "asyncio.CancelledError", "GeneratorExit"])
@pytest.mark.parametrize("word", ["def", "async def"])
def test_whatever_a_value_raises_it_is_not_serialisable(python: Runtime, kind: str, word: str) -> None:
    answer = python.call(RAISES.format(f"raise {kind}('no')", word))
    assert answer.failure(400, "not_serializable")["message"] == "no"
    python.only_error()
    assert python.call(returns("1")).body == b"1"


@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_value_that_exits_ends_the_process(python: Runtime, word: str) -> None:
    body = python.call(RAISES.format("sys.exit(6)", word)).failure(500, "exit")
    assert body["message"] == "SystemExit(6) ended the process."
    assert python.process.wait(10) == 6


def test_an_exception_of_a_def_is_thrown_at_once(python: Runtime) -> None:
    answer = python.call("def main(context):\n\n    return fail()\ndef fail():\n    raise TypeError('not so')")
    body = answer.failure(500, "sync_exception")
    stack = (
        "Traceback (most recent call last):\n"
        '  File "webtask.py", line 3, in main\n    return fail()\n           ^^^^^^\n'
        "  File \"webtask.py\", line 5, in fail\n    raise TypeError('not so')\n"
        "TypeError: not so"
    )
    assert body == {
        "code": 500, "reason": "sync_exception", "req_id": "req-1", "name": "TypeError", "message": "not so",
        "error": "Script generated an unhandled synchronous exception.", "details": "TypeError: not so", "stack": stack,
    }  # fmt: skip
    assert python.only_error().text == f"{body['error']}\n{stack}"


def test_an_exception_of_an_async_def_is_as_a_rejected_promise(python: Runtime) -> None:
    answer = python.call(
        "import asyncio\nasync def main(context):\n    await asyncio.sleep(0)\n    raise KeyError('k')"
    )
    body = answer.failure(400, "script_error")
    assert body["error"] == "Script returned an error."
    assert (body["name"], body["message"], body["details"]) == ("KeyError", "'k'", "KeyError: 'k'")
    python.only_error()


@pytest.mark.parametrize(
    ("status", "seen"),
    [
        ("404", 404), ("599", 599), ("400", 400), ("200", 0), ("399", 0), ("600", 0), ("'404'", 0), ("404.5", 0),
        ("None", 0), ("{}", 0), ("-1", 0), ("True", 0), ("__import__('http').HTTPStatus.NOT_FOUND", 404),
        ("type('I', (int,), {'__int__': lambda _: 5, '__le__': lambda *_: 1 / 0, '__ge__': lambda *_: 1 / 0})(404)", 404),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["status_code", "statusCode"])
def test_an_exception_chooses_a_status_from_400_to_599(python: Runtime, name: str, status: str, seen: int) -> None:
    code = f"main(context):\n    error = Exception('e')\n    error.{name} = {status}\n    raise error"
    python.call(f"def {code}").failure(seen or 500, "script_error" if seen else "sync_exception")
    python.call(f"async def {code}").failure(seen or 400, "script_error")


def test_a_status_that_cannot_be_read_is_none(python: Runtime) -> None:
    code = "class E(Exception):\n    @property\n    def status_code(self):\n        raise KeyboardInterrupt\ndef main(context):\n    raise E"
    python.call(code).failure(500, "sync_exception")


@pytest.mark.parametrize(
    "later",
    [
        "asyncio.get_running_loop().call_soon(fail)",
        "asyncio.get_running_loop().call_later(0.01, fail)",
        "asyncio.create_task(afail())",
        "asyncio.ensure_future(afail())",
        "threading.Thread(target=fail).start()",
        "asyncio.get_running_loop().create_task(anested())",
    ],
)
def test_raised_later(python: Runtime, later: str) -> None:
    code = (
        "import asyncio, threading\ndef fail():\n    raise ValueError('late')\nasync def afail():\n    fail()\n"
        "async def anested():\n    asyncio.create_task(afail())\n"
        f"async def main(context):\n    {later}\n    await asyncio.sleep(20)"
    )
    body = python.call(code).failure(500, "async_exception")
    assert body["error"] == "Script generated an unhandled asynchronous exception."
    assert body["message"] == "late"
    python.only_error()
    assert python.probe().status == 204


@pytest.mark.parametrize(
    ("code", "line", "column", "message", "name"),
    [
        ("def main(context):\n    return (", 2, 12, "'(' was never closed", "SyntaxError"),
        ("def main(context)\n    return 1", 1, 18, "expected ':'", "SyntaxError"),
        ("# \u00fc\n\u00e4 = = 1", 2, 5, "invalid syntax", "SyntaxError"),
        ("def main(context):\n    a = 1\n\tb = 2", 3, 1, "inconsistent use of tabs and spaces in indentation", "TabError"),
        ("x = 1\n  y = 2", 2, 2, "unexpected indent", "IndentationError"),
        ("def main(context):\nreturn 1", 2, 1, "expected an indented block after function definition on line 1", "IndentationError"),
        ("\ufeffa = = 1", 1, 5, "invalid syntax", "SyntaxError"),
        ("a = 1\nb = 'x\0y'", 2, 7, "source code cannot contain null bytes", "SyntaxError"),
        ("return 1", 1, 1, "'return' outside function", "SyntaxError"),
        ("await x", 1, 1, "'await' outside function", "SyntaxError"),
        ("function main(c) { }", 1, 10, "invalid syntax", "SyntaxError"),
    ],
)  # fmt: skip
def test_does_not_compile(python: Runtime, code: str, line: int, column: int, message: str, name: str) -> None:
    body = python.load(code).failure(400, "compilation_failed", "compiler")
    assert body["message"] == f"Compilation failed: {message} (line {line}, column {column})"
    assert (body["line"], body["column"], body["name"]) == (line, column, name)
    assert body["req_id"] == "load-1"
    assert str(body["stack"]).startswith(f'  File "webtask.py", line {line}\n')
    assert "runtimes" not in str(body["stack"])
    assert python.only_error("load-1").text.startswith(str(body["error"]))


@pytest.mark.parametrize(
    "code", ["(" * 10_000, "[" * 300 + "]" * 300, "x = " + "-" * 100_000 + "1", "9" * 10_000, "f" + "(0)" * 20_000]
)
def test_what_the_compiler_cannot_take_is_told(python: Runtime, code: str) -> None:
    answer = python.load(code)
    assert answer.failure(400, "compilation_failed", "compiler")["message"]
    assert len(answer.body) < 512 * 1024
    assert python.call(returns("1")).body == b"1"


def test_the_texts_of_an_error_are_cut(python: Runtime) -> None:
    code = "def main(context):\n    raise type('n' * 16384, (Exception,), {})('m' * 20000)"
    body = python.call(code).failure(500, "sync_exception")
    assert body["message"] == "m" * 16384 + " [3616 characters cut]"
    assert body["name"] == "n" * 16384
    assert str(body["details"]).endswith(" characters cut]")
    assert len(str(body["stack"])) <= 32768


def test_fails_at_load(python: Runtime) -> None:
    code = "a = 1\ndef boom():\n    raise ArithmeticError('top')\n  \nboom()\ndef main(context):\n    return 1"
    for _ in range(2):
        body = python.call(code).failure(400, "compilation_failed", "compiler")
        assert body["message"] == "Compilation failed: top (line 3)"
        assert body["line"] == 3
        assert str(body["stack"]).startswith(
            'Traceback (most recent call last):\n  File "webtask.py", line 5, in <module>\n'
        )


def test_a_missing_module_fails_at_load(python: Runtime) -> None:
    body = python.call("\nimport requests").failure(400, "compilation_failed", "compiler")
    assert body["message"] == (
        "Compilation failed: No module named 'requests': if PyPI calls it so, it is not installed: "
        "`sandpost module add pypi:requests==VERSION` (line 2)"
    )


@pytest.mark.parametrize(
    "code", ["", "x = 1", "main = 5", "main = None", "# main", "app = 'x'", "def other(context): pass"]
)
def test_no_function(python: Runtime, code: str) -> None:
    body = python.call(code).failure(400, "no_function", "compiler")
    assert body["message"] == "Invalid webtask code"
    assert body["error"] == "Supplied code must return or export a function."
    python.only_error()


@pytest.mark.parametrize(
    "code",
    [
        "def main(): return 1", "def main(a, b): return 1", "def main(a, b, c, d): return 1", "def main(*all): return 1",
        "async def main(): return 1", "def main(a, *, b): return 1", "def main(**all): return 1",
        "class A:\n    def __call__(self): pass\nmain = A()",
    ],
)  # fmt: skip
def test_wrong_number_of_parameters(python: Runtime, code: str) -> None:
    body = python.call(code).failure(400, "wrong_signature", "compiler")
    for signature in ("def main(context)", "async def main(context)", "def main(context, request, response)"):
        assert signature in str(body["error"])
    python.only_error()


@pytest.mark.parametrize(
    ("ending", "word", "status"),
    [
        ("raise SystemExit(3)", "exit", 3),
        ("sys.exit()", "exit", 0),
        ("sys.exit('words')", "exit", 1),
        ("os._exit(4)", "exit", 4),
        ("os.abort()", "crash", -6),
        ("os.kill(os.getpid(), 9)", "crash", -9),
        ("os.kill(os.getpid(), signal.SIGTERM)", "crash", -15),
        ("os.kill(0, 15)", "crash", -15),
        ("os.kill(os.getpid(), signal.SIGINT)", "crash", -2),
    ],
)
@pytest.mark.parametrize("word_of", ["def", "async def"])
def test_the_call_that_ends_the_process_is_named(
    python: Runtime, ending: str, word: str, status: int, word_of: str
) -> None:
    if "kill(0" in ending:
        ending = f"os.setpgid(0, 0); {ending}"
    code = f"import os, signal, sys\n{word_of} main(context):\n    {ending}"
    with python.begin(
        "import asyncio\nasync def main(c):\n    await asyncio.sleep(60)", req_id="neighbour"
    ) as neighbour:
        answer = python.call(code, req_id="guilty")
        body = answer.failure(500, word)
        assert body["req_id"] == "guilty"
        assert answer.headers["x-sandpost-end"] == word
        assert "ended the process" in str(body["message"])
        assert python.process.wait(10) == status
        assert neighbour.sock.recv(1) == b""
    errors = [record for record in python.records() if record.level == 50]
    assert errors[-1] == Record(50, "guilty", str(body["message"]))
    assert [record.text for record in errors[:-1]] == (["words"] if "words" in ending else [])


def test_a_program_that_exits_while_it_is_loaded_is_named(python: Runtime) -> None:
    answer = python.call("import sys\nsys.exit(7)")
    assert answer.failure(500, "exit")["message"] == "SystemExit(7) ended the process."
    assert python.process.wait(10) == 7


def test_an_exit_in_a_task_ends_the_process(python: Runtime) -> None:
    code = (
        "import asyncio, sys\nasync def leave():\n    sys.exit(5)\nasync def main(c):\n    asyncio.create_task(leave())\n"
        "    await asyncio.sleep(60)"
    )
    with python.begin(code) as connection:
        assert python.process.wait(10) == 5
        assert connection.sock.recv(1) == b""


def test_an_exit_after_the_answer_blames_no_call(python: Runtime) -> None:
    code = (
        "import threading, os, time\ndef later():\n    time.sleep(0.05)\n    os._exit(5)\n"
        "def main(c):\n    threading.Thread(target=later).start()\n    return 'done'"
    )
    assert python.call(code).body == b'"done"'
    assert python.process.wait(10) == 5


def test_a_native_crash_ends_the_process(python: Runtime) -> None:
    with python.begin("import ctypes\ndef main(c):\n    ctypes.string_at(1)") as connection:
        assert python.process.wait(10) == -11
        assert connection.sock.recv(1) == b""


def test_what_a_program_registers_for_its_exit_runs(python: Runtime) -> None:
    code = "import atexit, sys\natexit.register(print, 'goodbye')\ndef main(c):\n    sys.exit(2)"
    assert python.call(code).status == 500
    assert python.process.wait(10) == 2
    assert "goodbye" in [record.text for record in python.records(lambda found: len(found) == 2)]


def test_a_signal_that_asks_is_no_end(python: Runtime) -> None:
    code = "import os\ndef main(c):\n    os.kill(os.getpid(), 0)\n    return 'alive'"
    assert python.call(code).body == b'"alive"'


def test_children_that_exit_end_nothing(python: Runtime) -> None:
    code = (
        "import os, subprocess\ndef main(c):\n    pid = os.fork()\n    if pid == 0:\n        os._exit(3)\n"
        "    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), subprocess.run(['/bin/false']).returncode]"
    )
    assert python.call(code).json == [3, 1]
    assert python.probe().status == 204

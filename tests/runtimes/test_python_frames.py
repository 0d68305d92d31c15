"""Log records of programs in Python: frames on descriptor 3, raw output on 1 and 2."""

import pytest

from support.runtime import Record, Runtime, StartRuntime

OK = "def main(context):\n    return 'ok'"


@pytest.mark.parametrize(
    ("say", "records"),
    [
        ("print('a', 5)", [(30, "a 5")]),
        ("print('two\\nlines')", [(30, "two\nlines")]),
        ("print()", [(30, "")]),
        ("print('a', end=''); print('b')", [(30, "ab")]),
        ("print('no end', end='')", [(30, "no end")]),
        ("print('\\u00fc\\U0001f600')", [(30, "\u00fc\U0001f600")]),
        ("print('\\ud800')", [(30, "?")]),
        ("print('e', file=sys.stderr)", [(50, "e")]),
        ("sys.stdout.write('x\\n'); sys.stderr.write('y\\n'); sys.stdout.flush()", [(30, "x"), (50, "y")]),
        ("sys.stdout.writelines(['a\\n', 'b\\n'])", [(30, "a"), (30, "b")]),
        ("warnings.warn('w')", [(40, "webtask.py:3: UserWarning: w")]),
        ("logging.warning('w %d', 1)", [(40, "WARNING:root:w 1")]),
        ("logging.getLogger('x').error('e')", [(50, "e")]),
        ("logging.getLogger('x').warning('w')", [(40, "w")]),
        ("logging.info('not asked for')", []),
        (
            "logging.basicConfig(level=1, format='%(message)s'); [logging.log(n, t) for n, t in zip((5, 10, 20, 30, 40, 50, 25), 'tdiwecb')]",
            [(10, "t"), (20, "d"), (30, "i"), (40, "w"), (50, "e"), (50, "c"), (30, "b")],
        ),
        ("helper()", [(40, "webtask.py:3: RuntimeWarning: coroutine 'helper' was never awaited")]),
    ],
)
@pytest.mark.parametrize("word", ["def", "async def"])
def test_what_is_said_has_a_level(python: Runtime, say: str, records: list[tuple[int, str]], word: str) -> None:
    code = f"import logging, sys, warnings\n{word} main(context):\n    {say}\nasync def helper():\n    pass"
    python.call(code, req_id="r-log")
    python.call("def main(c):\n    print('end')", req_id="last")
    found = python.records(lambda seen: bool(seen) and seen[-1].text == "end")
    assert found[:-1] == [Record(level, "r-log", text) for level, text in records]


ASGI = """
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        return
    await send({{'type': 'http.response.start', 'status': 200}})
    await send({{'type': 'http.response.body', 'body': b'x'}})
    {}
"""


@pytest.mark.parametrize(
    "code",
    [
        "def main(c, q, s):\n    s.write('x')\n    print('no end', end='')",
        "async def main(c, q, s):\n    await s.write('x')\n    print('no end', end='')",
        ASGI.format("print('no end', end='')"),
        # The answer has come from elsewhere by then.
        "import threading, time\ndef main(c):\n    threading.Thread(target=lambda: 1 / 0).start()\n    time.sleep(0.2); print('no end', end='')",
    ],
)
def test_what_has_no_end_of_its_line_is_said_at_the_end_of_each_program(python: Runtime, code: str) -> None:
    python.call(code, req_id="r-log")
    found = python.records(lambda seen: any(record.level == 30 for record in seen))
    assert found[-1] == Record(30, "r-log", "no end")


@pytest.mark.parametrize(
    "then", ["return", "await send({'type': 'websocket.close'})", "await receive()\n    await receive()"]
)
def test_what_has_no_end_of_its_line_is_said_at_the_end_of_a_websocket(python: Runtime, then: str) -> None:
    code = f"""
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        return
    await send({{'type': 'websocket.accept'}})
    print('no end', end='')
    {then}
"""
    headers = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-key": "a", "sec-websocket-version": "13"}
    with python.begin(code, headers=headers, req_id="r-log") as connection:
        connection.sock.recv(1000)
    assert python.records() == [Record(30, "r-log", "no end")]


TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("headers", "req_id"),
    [
        ({"x-sandpost-trace": TRACE}, f"r-trace {TRACE}"),
        ({}, "r-trace"),
        # What would not fit into a frame is left out.
        ({"x-sandpost-trace": TRACE * 2}, "r-trace"),
    ],
)
def test_a_record_of_a_traced_call_names_its_trace(python: Runtime, headers: dict[str, str], req_id: str) -> None:
    code = "def main(context):\n    print(context.id, [name for name in context.headers if 'trace' in name])\n    1 / 0"
    answer = python.call(code, headers=headers, req_id="r-trace")
    assert answer.json["req_id"] == "r-trace"
    said, failed = python.records(lambda found: len(found) == 2)
    assert said == Record(30, req_id, "r-trace []")
    assert (failed.level, failed.req_id) == (50, req_id)


def test_an_exception_that_is_logged_is_one_record(python: Runtime) -> None:
    code = "import logging\ndef main(context):\n    try:\n        1 / 0\n    except ArithmeticError:\n        logging.exception('caught')"
    python.call(code)
    (record,) = python.records()
    assert record.level == 50
    assert record.text.startswith("ERROR:root:caught\nTraceback (most recent call last):\n")
    assert record.text.endswith("ZeroDivisionError: division by zero")


def test_a_record_belongs_to_the_call_that_wrote_it(python: Runtime) -> None:
    code = """
import asyncio
async def main(c):
    n = int(c.data['n'])
    print('now', n, end=' ')
    await asyncio.sleep(0.02 - 0.01 * n)
    print('later', n)"""
    with (
        python.begin(code, target="/a?n=0", req_id="zero") as zero,
        python.begin(code, target="/a?n=1", req_id="one") as one,
    ):
        zero.answer()
        one.answer()
    records = python.records(lambda found: len(found) == 2)
    assert {(record.req_id, record.text) for record in records} == {("zero", "now 0 later 0"), ("one", "now 1 later 1")}


@pytest.mark.parametrize(
    "where",
    [
        "threading.Thread(target=say).start()",
        "await asyncio.to_thread(say)",
        "await asyncio.get_running_loop().run_in_executor(None, say)",
        "pool.submit(say).result()",
        "asyncio.get_running_loop().call_soon(say); await asyncio.sleep(0.01)",
        "asyncio.create_task(asay()); await asyncio.sleep(0.01)",
        "contextvars.copy_context().run(say)",
        "weakref.finalize(Thing(), say)",
    ],
)
def test_work_that_a_call_gave_away_belongs_to_it(python: Runtime, where: str) -> None:
    code = f"""
import asyncio, concurrent.futures, contextvars, threading, weakref
pool = concurrent.futures.ThreadPoolExecutor(1)
class Thing: pass
def say(): print('here')
async def asay(): say()
async def main(c):
    {where}
"""
    for req_id in ("first", "second"):
        python.call(code, req_id=req_id)
        assert python.records() == [Record(30, req_id, "here")]


def test_the_top_level_belongs_to_the_call_that_ran_it(python: Runtime) -> None:
    python.call("print('top')\ndef main(c):\n    print('main')", req_id="r1")
    assert python.records(lambda found: len(found) == 2) == [Record(30, "r1", "top"), Record(30, "r1", "main")]


@pytest.mark.parametrize("req_id", ["", "x" * 65, "with space"])
def test_a_request_id_that_is_none_is_left_out(python: Runtime, req_id: str) -> None:
    answer = python.call("def main(c):\n    raise ValueError", req_id=req_id)
    assert "req_id" not in answer.json
    assert python.records()[0].req_id == ""


@pytest.mark.parametrize("length", [0, 1, 1360, 4000, 4081, 4082, 4083, 5000, 60_000, 65_536])
def test_long_records_are_split_into_frames_and_whole_again(python: Runtime, length: int) -> None:
    python.call(f"def main(c):\n    print('x' * {length})")
    assert python.records() == [Record(30, "req-1", "x" * length)]


def test_a_record_of_many_bytes_a_character(python: Runtime) -> None:
    python.call("def main(c):\n    print('a' + '\\u20ac' * 10000)")
    assert python.records() == [Record(30, "req-1", "a" + "\u20ac" * 10000)]


@pytest.mark.parametrize(("length", "cut"), [(65_537, 1), (50_000_000, 49_934_464)])
def test_a_record_beyond_the_bound_is_cut(python: Runtime, length: int, cut: int) -> None:
    python.call(f"import sys\ndef main(c):\n    sys.stdout.write('x' * {length})")
    (record,) = python.records()
    assert len(record.text) == 65_536
    assert record.text.endswith(f"x [{cut} bytes cut]")


def test_a_frame_byte_by_byte(python: Runtime) -> None:
    python.call("import sys\ndef main(c):\n    print('h\\u00fc', file=sys.stderr)", req_id="ab")
    assert python.read_frames() == b"\xf5\x01\x32\x00\x00\x03\x02\x00abh\xc3\xbc"


def test_raw_output_stays_raw(python: Runtime) -> None:
    code = """
import os, subprocess, sys
def main(c):
    os.write(1, b'out\\n')
    sys.stdout.buffer.write(b'buffer\\n')
    subprocess.run(['sh', '-c', 'echo child; echo err >&2'])
    return [sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.isatty(), sys.stdout.writable(), sys.stdout.encoding]"""
    assert python.call(code).json == [1, 2, False, True, "utf-8"]
    assert python.output.read_text() == "out\nbuffer\nchild\nerr\n"
    assert python.read_frames() == b""


@pytest.mark.parametrize("word", ["def", "async def"])
def test_a_full_pipe_drops_counts_and_never_blocks(python: Runtime, word: str) -> None:
    code = f"{word} main(c):\n    for i in range(20000):\n        print('line', i, 'x' * 100)\n    return 'done'"
    assert python.call(code).body == b'"done"'
    assert python.call(OK).body == b'"ok"'
    records = python.records(lambda found: any(record.notice for record in found))
    notice = next(record for record in records if record.notice)
    assert (notice.level, notice.req_id) == (40, "")
    kept = [int(record.text.split()[1]) for record in records if not record.notice]
    assert kept == list(range(len(kept)))  # in order, whole, from the first one
    assert notice.text.startswith(f"{20000 - len(kept)} log records (")
    assert 64 * 1024 < sum(len(record.text) for record in records) < 400 * 1024
    python.call("def main(c):\n    print('after')")
    assert python.records()[-1].text == "after"


def test_threads_that_print_at_once_leave_whole_records(python: Runtime) -> None:
    code = """
import threading
def say(n):
    for i in range(20):
        print(str(n) * 5000)
def main(c):
    threads = [threading.Thread(target=say, args=(n,)) for n in range(3)]
    for t in threads: t.start()
    for t in threads: t.join()"""
    with python.begin(code) as connection:
        records = python.records(lambda found: len(found) + sum(record.notice for record in found) >= 40)
        assert connection.answer().status == 200
    texts = [record.text for record in records if not record.notice]
    assert set(texts) <= {"0" * 5000, "1" * 5000, "2" * 5000}


def test_a_finaliser_that_prints_while_printing_loses_nothing(python: Runtime) -> None:
    code = """
import gc
class Loud:
    def __del__(self): print('del')
    def __str__(self):
        Loud(); return 'str'
def main(c):
    print(Loud())"""
    python.call(code)
    assert sorted(record.text for record in python.records(lambda found: len(found) == 3)) == ["del", "del", "str"]


def test_a_reader_that_is_gone_is_ignored(python: Runtime) -> None:
    python.close_log()
    assert python.call("def main(c):\n    print('nobody reads')\n    return 'ok'").body == b'"ok"'
    assert python.call("def main(c):\n    raise ValueError").status == 500
    assert python.call(OK).body == b'"ok"'


def test_without_descriptor_3_all_else_is_the_same(start_python: StartRuntime) -> None:
    python = start_python(frames=False)
    assert (
        python.call("import sys\ndef main(c):\n    print('unheard', file=sys.stderr)\n    return 'ok'").body == b'"ok"'
    )
    assert python.call("def main(c):\n    raise ValueError").status == 500
    assert python.output.read_bytes() == b""


def test_descriptor_3_is_not_inherited_by_children(python: Runtime) -> None:
    code = "import subprocess\ndef main(c):\n    return subprocess.run(['ls', '-l', '/proc/self/fd'], capture_output=True, close_fds=False, text=True).stdout"
    assert "log" not in python.call(code).json


def test_records_written_right_before_the_end_arrive(python: Runtime) -> None:
    python.call("import os\ndef main(c):\n    print('x' * 9000)\n    print('last')\n    os._exit(0)")
    texts = [record.text for record in python.records(lambda found: len(found) == 3)]
    assert texts[1:] == ["last", "os._exit(0) ended the process."]

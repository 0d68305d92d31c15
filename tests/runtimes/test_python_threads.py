"""`def` programs run in threads: neighbours are served meanwhile, and a thread that runs on ends the sandbox."""

import signal
import time

import pytest

from support.runtime import Connection, Record, Runtime

OK = "def main(context):\n    return 'ok'"
AOK = "async def main(context):\n    return 'ok'"
BLOCKED = 86
SLEEP = "import time\ndef main(context):\n    time.sleep(float(context.query['s']))\n    return 'slept'"


def close(connections: list[Connection]) -> None:
    for connection in connections:
        connection.sock.close()


def test_a_def_that_sleeps_stops_nobody(python: Runtime) -> None:
    with python.begin(SLEEP, target="/a?s=2") as sleeper:
        began = time.monotonic()
        for code in (OK, AOK):
            assert python.call(code).body == b'"ok"'
        assert python.probe().status == 204
        assert time.monotonic() - began < 1.9
        assert sleeper.answer().body == b'"slept"'


@pytest.mark.parametrize("where", ["top", "main"])
def test_a_def_that_computes_stops_nobody(python: Runtime, where: str) -> None:
    top = "loop()" if where == "top" else ""
    main = "loop()" if where == "main" else ""
    code = f"import time\ndef loop():\n    end = time.monotonic() + 2\n    while time.monotonic() < end: pass\n{top}\ndef main(c):\n    {main}\n    return 'done'"
    with python.begin(code) as busy:
        began = time.monotonic()
        for other in (OK, AOK):
            assert python.call(other).body == b'"ok"'
        assert python.probe().status == 204
        assert time.monotonic() - began < 1.9
        assert busy.answer().body == b'"done"'


def test_at_most_32_run_and_the_rest_wait_their_turn(python: Runtime) -> None:
    code = """
import threading, time
running = most = 0
lock, all_run = threading.Lock(), threading.Event()
def main(c):
    global running, most
    with lock:
        running += 1
        most = max(most, running)
        if running == 32:
            all_run.set()
    all_run.wait(5)
    time.sleep(0.2)
    with lock:
        running -= 1
    return most"""
    python.load(code)
    connections = [python.begin(code) for _ in range(40)]
    try:
        assert max(connection.answer().json for connection in connections) == 32
    finally:
        close(connections)


def test_a_call_whose_caller_left_while_it_waited_for_a_thread_is_not_run(python: Runtime) -> None:
    python.load(SLEEP)
    sleepers = [python.begin(SLEEP, target="/a?s=2") for _ in range(32)]
    time.sleep(0.1)
    with python.begin("def main(c):\n    print('ran')"):
        time.sleep(0.1)
    try:
        assert {sleeper.answer().body for sleeper in sleepers} == {b'"slept"'}
    finally:
        close(sleepers)
    assert python.call("def main(c):\n    print('after')").status == 200
    assert [record.text for record in python.records()] == ["after"]


def test_context_variables_are_the_calls_own(python: Runtime) -> None:
    code = """
import contextvars, time
seen = contextvars.ContextVar('seen', default='nobody')
def main(c):
    before = seen.get()
    seen.set(c.id)
    time.sleep(0.05)
    return [before, seen.get()]"""
    connections = [python.begin(code, req_id=f"r{n}") for n in range(4)]
    try:
        assert [connection.answer().json for connection in connections] == [["nobody", f"r{n}"] for n in range(4)]
    finally:
        close(connections)


@pytest.mark.parametrize("room", [0, 3])
def test_where_no_more_threads_can_be_started_calls_wait_for_one(python: Runtime, room: int) -> None:
    """A Python that is out of threads says so by a RuntimeError; the limit is lifted after a moment."""
    limit = f"""
import _thread, asyncio, sys
threads = sys.modules['python.threads']
start, left = threads.start_new_thread, [{room}]
def refuse(*args):
    if left[0] <= 0:
        raise RuntimeError("can't start new thread")
    left[0] -= 1
    return start(*args)
async def main(context):
    threads.start_new_thread = refuse
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.6, left.__setitem__, 0, 99)"""
    python.load(SLEEP)
    connections = [python.begin(AOK)]
    python.call(limit)
    connections += [python.begin(SLEEP, target="/a?s=0.05") for _ in range(8)]
    try:
        assert [connection.answer().status for connection in connections] == [200] * 9
    finally:
        close(connections)


# --- deadlines ----------------------------------------------------------------------------------------------

LOOP = "def main(context):\n    while True: pass"


def begin_with_deadline(python: Runtime, code: str, target: str = "/a", deadline: str = "500") -> Connection:
    return python.begin(code, target=target, headers={"x-sandpost-deadline": deadline}, req_id="late")


@pytest.mark.parametrize(
    "code", [LOOP, "while True: pass", "def main(c, q, s):\n    s.write('x')\n    while True: pass"]
)
def test_a_thread_that_computes_on_ends_the_process_though_others_are_served(python: Runtime, code: str) -> None:
    with python.begin(SLEEP, target="/a?s=30") as neighbour:
        began = time.monotonic()
        with begin_with_deadline(python, code):
            time.sleep(0.5)
        assert python.process.wait(10) == BLOCKED
        assert 1.3 < time.monotonic() - began < 8
        assert neighbour.sock.recv(1) == b""
    assert python.records()[-1] == Record(
        50, "late", "blocked: a thread of this call computes on, a second after the call's deadline"
    )


CALM = "import time\ndef main(context):\n    for _ in range(3000): time.sleep(0.01)"
BESIDE = {
    "a call that waits": SLEEP.replace("float(context.query['s'])", "30"),
    "a loop that computes": "import asyncio\nasync def main(c):\n    while True:\n        sum(range(20000))\n        await asyncio.sleep(0)",
    "a thread of a program's own that computes": "import threading, time\ndef burn():\n    while True: pass\ndef main(c):\n    threading.Thread(target=burn, daemon=True).start()\n    time.sleep(30)",
    "four calls that compute": LOOP,
}


@pytest.mark.parametrize(
    ("threads", "beside"),
    [
        (8, "a call that waits"),
        (8, "a loop that computes"),
        (1, "a thread of a program's own that computes"),
        (1, "four calls that compute"),
    ],
)
def test_threads_that_compute_on_end_the_process_whatever_is_beside_them(
    python: Runtime, threads: int, beside: str
) -> None:
    neighbours = [python.begin(BESIDE[beside]) for _ in range(4 if "four" in beside else 1)]
    runaways = [begin_with_deadline(python, LOOP) for _ in range(threads)]
    try:
        began = time.monotonic()
        assert python.process.wait(15) == BLOCKED
        assert 1.3 < time.monotonic() - began < 8
    finally:
        close(neighbours + runaways)
    assert python.records()[-1].text.startswith("blocked: a thread of this call computes on")


@pytest.mark.parametrize(
    ("waits", "beside"),
    [
        ("rests", "a loop that computes"),
        ("looks", "a call that waits"),
        ("looks", "a loop that computes"),
        ("looks", "a thread of a program's own that computes"),
    ],
)
def test_a_thread_that_waits_on_ends_nothing_whatever_computes_beside_it(
    python: Runtime, beside: str, waits: str
) -> None:
    neighbours = [python.begin(BESIDE[beside]) for _ in range(4 if "four" in beside else 1)]
    late = begin_with_deadline(python, {"rests": SLEEP, "looks": CALM}[waits], "/a?s=30")
    try:
        time.sleep(4)
        assert python.process.poll() is None
    finally:
        close([*neighbours, late])


@pytest.mark.parametrize(("threads", "share"), [(1, 0.05), (8, 0.05), (1, 0.25)])
def test_threads_that_compute_on_with_a_small_quota_end_the_process(
    python: Runtime, threads: int, share: float
) -> None:
    """What a quota does: so much of each tenth of a second, and then none."""
    neighbour = python.begin(SLEEP, target="/a?s=60")
    runaways = [begin_with_deadline(python, LOOP) for _ in range(threads)]
    try:
        began = time.monotonic()
        while python.process.poll() is None and time.monotonic() - began < 20:
            python.process.send_signal(signal.SIGSTOP)
            time.sleep(0.1 * (1 - share))
            python.process.send_signal(signal.SIGCONT)
            time.sleep(0.1 * share)
        assert python.process.wait(1) == BLOCKED
    finally:
        close([neighbour, *runaways])
    assert python.records()[-1].text.startswith("blocked: a thread of this call computes on")


def test_a_thread_that_waits_on_with_a_small_quota_ends_nothing(python: Runtime) -> None:
    neighbours = [python.begin(BESIDE["a loop that computes"]), begin_with_deadline(python, SLEEP, "/a?s=60")]
    try:
        began = time.monotonic()
        while time.monotonic() - began < 6:
            python.process.send_signal(signal.SIGSTOP)
            time.sleep(0.09)
            python.process.send_signal(signal.SIGCONT)
            time.sleep(0.01)
        assert python.process.poll() is None
    finally:
        close(neighbours)


def test_a_thread_that_waits_on_ends_the_process_when_nobody_else_is_served(python: Runtime) -> None:
    with python.begin(SLEEP, target="/a?s=3") as neighbour:
        with begin_with_deadline(python, SLEEP, "/a?s=60"):
            time.sleep(0.5)
        time.sleep(1.8)
        assert python.process.poll() is None
        assert neighbour.answer().body == b'"slept"'
    assert python.process.wait(10) == BLOCKED
    assert python.records()[-1] == Record(
        50, "late", "blocked: a thread of this call waits on, a second after the call's deadline"
    )


def test_a_thread_that_ends_within_a_second_of_its_deadline_ends_nothing(python: Runtime) -> None:
    with begin_with_deadline(python, SLEEP, "/a?s=0.7"):
        time.sleep(0.5)
    time.sleep(2)
    assert python.process.poll() is None
    assert python.call(OK).body == b'"ok"'


@pytest.mark.parametrize("deadline", ["", "x", "-1", "1e3", "60000"])
def test_a_caller_that_leaves_before_its_deadline_ends_nothing(python: Runtime, deadline: str) -> None:
    with begin_with_deadline(python, SLEEP, "/a?s=2.5", deadline):
        time.sleep(0.1)
    time.sleep(2)
    assert python.process.poll() is None


def test_an_async_def_that_waits_on_ends_nothing(python: Runtime) -> None:
    code = "import asyncio\nasync def main(c):\n    await asyncio.sleep(60)"
    with begin_with_deadline(python, code, deadline="100"):
        time.sleep(0.1)
    time.sleep(2)
    assert python.process.poll() is None


def test_a_blocked_loop_does_not_answer_its_probe(python: Runtime) -> None:
    code = "import time\nasync def main(c):\n    time.sleep(2)\n    return 'late'"
    with python.begin(code) as blocked, python.connect() as probe:
        time.sleep(0.1)
        probe.send("GET", "/", {"x-sandpost-op": "probe"})
        probe.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            probe.sock.recv(1)
        probe.sock.settimeout(10)
        assert probe.answer().status == 204
        assert blocked.answer().body == b'"late"'

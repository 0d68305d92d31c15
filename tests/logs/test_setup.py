"""Platform logs as another process sees them: what a started interpreter writes to its stderr."""

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
from typing import Any

import pytest

from sandpost.logs.setup import hide_keys


def run(code: str, *, part: str = "api", index: int = 0, status: int = 0) -> list[dict[str, Any]]:
    """Run `code` after `configure` and return the records it wrote to stderr."""
    script = f"""
import logging, sys
from sandpost.logs.setup import configure, get_logger
log = get_logger()
configure({part!r}, {index})
{textwrap.dedent(code)}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=20, check=False)
    assert done.returncode == status, done.stderr.decode()
    assert done.stdout == b""
    return [json.loads(line) for line in done.stderr.decode().splitlines()]


def test_record_has_bunyans_core_and_the_events_fields() -> None:
    (record,) = run('log.info("sandbox assigned", sandbox_id="0a", tenant="acme", ms=1.5)')
    assert record["name"] == "sandpost"
    assert record["hostname"] == socket.gethostname()
    assert record["pid"] != os.getpid()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
    assert (record["level"], record["v"], record["component"]) == (30, 0, "api")
    assert record["msg"] == "sandbox assigned"
    assert (record["sandbox_id"], record["tenant"], record["ms"]) == ("0a", "acme", 1.5)


def test_levels_are_bunyans_and_debug_is_off() -> None:
    records = run('log.debug("a"); log.info("b"); log.warning("c"); log.error("d"); log.critical("e")')
    assert [(r["msg"], r["level"]) for r in records] == [("b", 30), ("c", 40), ("d", 50), ("e", 60)]


def test_proxy_worker_tells_its_number() -> None:
    (record,) = run('log.info("ready")', part="proxy", index=3)
    assert (record["component"], record["worker"]) == ("proxy", 3)


def test_field_named_like_a_core_field_does_not_replace_it() -> None:
    (record,) = run('log.info("child started", pid=1, level=99, v="x")')
    assert record["pid"] != 1
    assert (record["level"], record["v"]) == (30, 0)
    assert (record["pid_"], record["level_"], record["v_"]) == (1, 99, "x")


def test_exception_becomes_err_with_its_stack() -> None:
    records = run("""
        try:
            {}["absent"]
        except KeyError as error:
            log.exception("first")
            log.error("second", exc_info=error)
            log.error("third", err=error)
    """)
    for record in records:
        assert record["err"]["name"] == "KeyError"
        assert record["err"]["message"] == "'absent'"
        assert "Traceback" in record["err"]["stack"]
        assert record["level"] == 50
    assert len(records) == 3


def test_standard_loggers_reach_the_same_stream_and_request_lines_do_not() -> None:
    records = run("""
        import warnings
        logging.getLogger("asyncio").error("took %d s", 3)
        logging.getLogger("uvicorn.error").info("started")
        logging.getLogger("uvicorn.access").info("GET /api?key=secret")
        logging.getLogger("httpx").info("GET /api?key=secret")
        logging.getLogger("x").warning("%d", "no number")
        warnings.warn("old", DeprecationWarning)
        try:
            1 / 0
        except ZeroDivisionError:
            logging.getLogger("asyncio").exception("failed")
    """)
    told = [(r["logger"], r["level"], r["msg"]) for r in records]
    assert told[0] == ("asyncio", 50, "took 3 s")
    assert told[1] == ("uvicorn.error", 30, "started")
    assert told[2][2].startswith("'%d' cannot be formatted")
    assert told[-1] == ("asyncio", 50, "failed")
    assert records[-1]["err"]["name"] == "ZeroDivisionError"
    assert {r["logger"] for r in records} <= {"asyncio", "uvicorn.error", "x", "py.warnings"}


def test_uncaught_exceptions_are_fatal_records() -> None:
    records = run(
        """
        import threading
        def fail(): raise OSError("in thread")
        thread = threading.Thread(target=fail)
        thread.start(); thread.join()
        raise OSError("in main, sp_01234567_abcDEF")
        """,
        status=1,
    )
    assert [r["level"] for r in records] == [60, 60]
    assert records[0]["err"]["message"] == "in thread"
    assert records[1]["err"]["message"] == "in main, sp_01234567_[hidden]"


def test_keys_leave_no_process_however_deep_they_hide() -> None:
    records = run(r"""
        secret = "sp_01234567_SECRETSECRET"
        log.info(f"hello {secret}", list=[{"deep": {"k" + secret: (secret,)}}], raw=secret.encode(), obj={secret})
        log.info("url", target="/acme?a=b&key=SECRET&c=d", other="https://h/x?KEY=SECRET", head="Bearer SECRET x")
        log.info('quoted "GET /a?key=SECRET\\" SECRET" 200')
        log.info("env SANDPOST_ADMIN_KEY=SECRET-admin", monkey="monkey=banana")
        log.info("key=\nSECRET")
    """)
    assert "SECRET" not in json.dumps(records[0])
    assert records[1]["target"] == "/acme?a=b&key=[hidden]&c=d"
    assert records[1]["other"] == "https://h/x?KEY=[hidden]"
    assert records[1]["head"] == "Bearer [hidden] x"
    assert records[3]["msg"] == "env SANDPOST_ADMIN_KEY=[hidden]"
    assert records[3]["monkey"] == "monkey=banana"
    assert "SECRET" not in json.dumps(records[4])


@pytest.mark.parametrize("value", ["key=abc\\", "key=\\\\", 'key="', "key=\\u0041", "bearer \\"])
def test_hiding_leaves_valid_json(value: str) -> None:
    line = json.dumps({"msg": value, "then": "key=z"}).encode()
    assert json.loads(hide_keys(line))["then"] == "key=[hidden]"


def test_what_json_cannot_say_is_shown_and_not_lost() -> None:
    records = run(r"""
        log.info("surrogate \udc80", path="/x/\udcff")
        log.info("number", big=1 << 80, nan=float("nan"), obj=object, pair={(1, 2): 3})
        cycle = []; cycle.append(cycle)
        log.info("cycle", cycle=cycle)
    """)
    assert [r["msg"] for r in records] == ["surrogate \\udc80", "number", "cycle"]
    assert records[0]["path"] == "/x/\\udcff"
    assert records[1]["pair"] == {"(1, 2)": 3}
    assert records[1]["big"] == 1 << 80


def test_closed_stderr_ends_no_process() -> None:
    code = "from sandpost.logs.setup import *; configure('api'); get_logger().info('x'); print('lived')"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=write, timeout=20, check=True)
    os.close(write)
    assert done.stdout == b"lived\n"

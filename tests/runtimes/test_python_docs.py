"""docs/python.md and docs/runtime.md say what the runtime of Python does."""

import re
from pathlib import Path

import pytest

from sandpost.model import wire
from sandpost.runtimes.python import failures, threads
from support.runtime import PYTHON_SOURCE, Record, Runtime

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "python.md").read_text()
WIRE = (DOCS / "runtime.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def example(mark: str) -> str:
    """The one example of the page that says `mark`."""
    (found,) = [code for code in EXAMPLES if mark in code]
    return str(found)


@pytest.mark.parametrize(
    ("mark", "status", "body"),
    [
        ('"Hello, "', 200, b'"Hello, Anna!"'),
        ("gather", 200, b'{"sum":3}'),
        ("Offer", 200, b'[{"price":"9.90","until":"2026-12-24"}]'),
        ("piece.upper", 201, b"BODY"),
        ("event-stream", 200, b"data: 0\n\ndata: 1\n\ndata: 2\n\n"),
        ("async def app", 200, b"/acme/x"),
        ("logging.info", 200, b'"logged"'),
    ],
)
def test_each_example_gives_what_it_says(python: Runtime, mark: str, status: int, body: bytes) -> None:
    answer = python.call(example(mark), "POST", "/acme/x?name=Anna", body=b"body")
    assert (answer.status, answer.body) == (status, body)


def test_the_example_of_a_failure_chooses_its_status(python: Runtime) -> None:
    body = python.call(example("NotFound")).json
    assert (body["code"], body["reason"], body["name"], body["message"]) == (
        404, "script_error", "NotFound", "there is no such thing"
    )  # fmt: skip
    assert body["details"] == "NotFound: there is no such thing"


def test_the_example_of_a_log_is_in_the_log(python: Runtime) -> None:
    python.call(example("logging.info"), headers={"user-agent": "curl"})
    assert python.records() == [Record(30, "req-1", "called by curl")]


def test_there_are_no_other_examples() -> None:
    assert len(EXAMPLES) == 8


def test_every_reason_of_the_runtime_is_in_the_table_with_its_status_and_source() -> None:
    table = WIRE[WIRE.index("## Answers that the runtime writes") : WIRE.index("## What a program gets")]
    for kind in failures.KINDS:
        row = next(line for line in table.splitlines() if f"`{kind.reason}`" in line)
        assert str(kind.status) in row
        assert (kind.source or "none") in row


def test_what_the_page_promises_of_threads_holds() -> None:
    assert f"at most {threads.MOST} threads" in PAGE
    assert wire.BLOCKED == threads.BLOCKED
    assert f"exit status {threads.BLOCKED}" in WIRE


def test_settings_and_flags_are_described() -> None:
    for name in set(re.findall(r"SANDPOST_\w+", (PYTHON_SOURCE / "settings.py").read_text())):
        assert f"`{name}`" in WIRE
    assert "`-I -S -B -u -X utf8`" in WIRE
    assert re.findall(r'"([^"]+)"', (PYTHON_SOURCE / "flags.json").read_text())[1:] == [
        "-I",
        "-S",
        "-B",
        "-u",
        "-X",
        "utf8",
    ]

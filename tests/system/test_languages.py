"""Languages and forms of programs through the whole platform."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from runtimes.conformance import FORMS, ROWS, Row
from support.platform import Platform

PAGE = (Path(__file__).parents[2] / "docs" / "languages.md").read_text()
TYPED = "const f = <T,>(a: T): T => a;\nreturn (context: any, cb: any) => cb(null, f(context.data.n ?? null))"


MET = {"a value", "thrown later", "does not compile", "fails at load"}
CASES = [pytest.param(row, form, id=f"{row.what}, {form}") for row in ROWS if row.what in MET for form in row.programs]


@pytest.mark.parametrize(("row", "form"), CASES)
def test_answers_are_the_runtimes_in_every_form(running: Platform, row: Row, form: str) -> None:
    answer = running.call("forms", row.programs[form], "x=y", headers={"Content-Type": FORMS[form]})
    assert answer.status == row.status
    assert answer.headers["x-wt-response-source"] == row.source
    if row.body is not None:
        assert answer.body == row.body
    if row.reason:
        assert answer.json["reason"] == row.reason
        assert {name: answer.json[name] for name in row.says} == dict(row.says)


def test_the_lines_of_the_page_give_what_they_say(running: Platform) -> None:
    [block] = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    commands = re.findall(r"(curl .*?)\n#=> (.*?)\n", block, re.DOTALL)
    assert len(commands) == 3
    for typed, expected in commands:
        place = {"URL": f"http://127.0.0.1:{running.port}", "KEY": running.key, "PATH": "/usr/bin:/bin"}
        seen = subprocess.run(
            ["/bin/sh", "-c", typed], env=place, capture_output=True, text=True, timeout=30, check=True
        )
        assert seen.stdout == expected


def test_a_typed_program_is_called_by_its_hash_in_another_sandbox(running: Platform) -> None:
    first = running.call("by-hash", TYPED, headers={"Content-Type": "application/typescript"})
    assert first.json == {}
    code = first.headers["x-sandpost-code"]
    # The same bytes are no JavaScript, and have another name.
    other = running.call("by-hash", TYPED)
    assert (other.status, other.headers["x-sandpost-code"] != code) == (400, True)
    assert running.call("by-hash", "return cb => process.exit(1)").json["reason"] == "exit"
    again = running.call("by-hash", "", f"webtask_code={code}&n=7")
    assert again.json == "7"


@pytest.mark.parametrize(
    ("body", "kind", "status", "reason", "words"),
    [
        (TYPED, "text/x-ruby", 415, "unsupported_language", "send javascript, typescript, python or csharp (content"),
        (f"// sandpost: language=typescrpit\n{TYPED}", "", 415, "unsupported_language", "did you mean `typescript`?"),
        (f"// sandpost: langauge=typescript\n{TYPED}", "", 400, "invalid_code", "did you mean `language`?"),
        (
            f"// sandpost: language=javascript\n{TYPED}",
            "text/typescript",
            400,
            "invalid_code",
            "the content type says typescript",
        ),
        ("\ufeff" + TYPED, "text/typescript", 400, "invalid_code", "byte order mark"),
        ("import x from 'lodash';\nexport default cb => cb()", "", 400, "compilation_failed", "(line 1, column 8)"),
        ("a = 1\nb = 'x\0y'", "text/x-python", 400, "compilation_failed", "null bytes (line 2, column 7)"),
        ("def main(c):\n    a = 1\n\tb = 2", "text/x-python", 400, "compilation_failed", "tabs and spaces"),
        ("main = 5", "text/x-python", 400, "no_function", "Invalid webtask code"),
        ("def main(c):\n    return main(c)", "text/x-python", 500, "sync_exception", "maximum recursion depth"),
        ("import lodash\ndef main(c): pass", "text/x-python", 400, "compilation_failed", "No module named 'lodash'"),
        ("def main(c): pass", "", 400, "compilation_failed", "Unexpected identifier"),
        (
            "# sandpost: language=python\ndef main(c): pass",
            "text/javascript",
            400,
            "invalid_code",
            "the content type says javascript, the pragma in the first line python",
        ),
        ("\nlet a: number = ;", "text/typescript", 400, "compilation_failed", "(line 2, column 17)"),
        (
            "export default await new Promise(() => { throw new Error('top') })",
            "",
            400,
            "compilation_failed",
            "top (line 1, column",
        ),
    ],
)
def test_what_is_no_program_of_its_language_is_told(
    running: Platform, body: str, kind: str, status: int, reason: str, words: str
) -> None:
    answer = running.call("told", body, headers={"Content-Type": kind} if kind else {})
    assert (answer.status, answer.json["reason"]) == (status, reason)
    assert words in answer.json["message"]


def test_a_module_that_never_starts_meets_the_deadline_and_the_next_call_begins_anew(running: Platform) -> None:
    running.set_tenant("starts", limits={"deadline": 2})
    code = """globalThis.begun = (globalThis.begun || 0) + 1;
    if (globalThis.begun === 1) await new Promise(() => {});
    export default cb => cb(null, globalThis.begun)"""
    assert (answer := running.call("starts", code)).status == 504, answer
    assert running.call("starts", code).json == 2


def test_a_megabyte_of_typescript_runs_within_the_default_limits(running: Platform) -> None:
    code = (
        "".join(f"const a{n}: number = {n};\n" for n in range(35_600)) + "export default (cb: any) => cb(null, a35599)"
    )
    answer = running.call("large", code, headers={"Content-Type": "text/typescript"})
    assert (answer.status, json.loads(answer.body)) == (200, 35599)


def test_a_program_that_breaks_the_compiler_costs_nothing_else(running: Platform) -> None:
    deep = "return (cb: any) => cb(null, " + "(" * 20_000 + "1" + ")" * 20_000 + ")"
    count = "let n = 0; return (cb) => cb(null, ++n)"
    kind = {"Content-Type": "text/typescript"}
    assert running.call("deep", count).json == 1
    assert running.call("deep", deep, headers=kind).json["reason"] == "compilation_failed"
    assert running.call("deep", "return (cb: any) => cb(null, 'typed')", headers=kind).json == "typed"
    assert running.call("deep", count).json == 2

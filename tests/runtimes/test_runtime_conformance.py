"""Every runtime answers as the one list says, in every form of a program."""

import re

import pytest

from runtimes.conformance import FORMS, ROWS, Row
from support.runtime import Record, Runtime

TARGET = "/acme?x=y"


CASES = [
    pytest.param(row, form, clr, id=f"{row.what}, {form}{'' if clr == 'mono' else ' on coreclr'}", marks=marks)
    for row in ROWS
    for form in row.programs
    for clr, marks in (("mono", ()), ("coreclr", pytest.mark.long))
    if clr == "mono" or form.startswith("csharp")
]


def test_every_form_runs_every_row_or_is_another_languages() -> None:
    assert {form for row in ROWS for form in row.programs} == set(FORMS)
    assert len({row.what for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("row", "form", "clr"), CASES, indirect=["clr"])
@pytest.mark.usefixtures("clr")
def test_it_answers_as_the_list_says(request: pytest.FixtureRequest, row: Row, form: str) -> None:
    runtime: Runtime = request.getfixturevalue(
        {"python": "python", "csharp": "edge"}.get(form.split(maxsplit=1)[0], "runtime")
    )
    program, kind = row.programs[form], FORMS[form]
    if row.at_load:
        answer = runtime.load(program, **{"content-type": kind})
    else:
        answer = runtime.call(program, target=TARGET, kind=kind)
    assert (answer.status, answer.headers["x-sandpost-source"]) == (row.status, row.source), answer
    assert answer.headers.get("x-sandpost-error", "") == row.reason
    assert answer.headers.get("x-sandpost-end", "") == row.ends
    if row.body is not None:
        assert answer.body == row.body
    if row.reason:
        body = answer.json
        assert (body["code"], body["reason"]) == (row.status, row.reason)
        assert {name: body[name] for name in row.says} == dict(row.says)
    if row.logs:
        found = runtime.records(lambda records: len(records) >= len(row.logs))
        assert found == [Record(level, "req-1", text) for level, text in row.logs]
    elif row.reason:
        (record,) = runtime.records()
        assert (record.level, record.req_id) == (50, "load-1" if row.at_load else "req-1")
    if row.ends:
        assert runtime.process.wait(10) != 0
    else:
        assert runtime.probe().status == 204


@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith(("python", "csharp"))])
def test_a_stack_names_the_authors_lines(runtime: Runtime, form: str) -> None:
    [row] = [row for row in ROWS if row.what == "thrown at once"]
    program = row.programs[form]
    line = program[: program.index("throw")].count("\n") + 1
    column = program.splitlines()[line - 1].index("new RangeError") + 1
    stack = runtime.call(program, kind=FORMS[form]).json["stack"]
    name = "webtask.ts" if "typescript" in form else "webtask.js"
    assert re.findall(r"webtask\S*?:\d+:\d+", stack) == [f"{name}:{line}:{column}"]

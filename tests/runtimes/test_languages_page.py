"""docs/languages.md: each program there gives what stands behind it."""

import re
from pathlib import Path

import pytest

from sandpost.model.languages import LANGUAGES, by_name
from support.runtime import StartRuntime

PAGE = (Path(__file__).parents[2] / "docs" / "languages.md").read_text()
SWITCH = "EDGE_USE_CORECLR"
EXAMPLES = re.findall(r"```(\w+)\n((?:(?!```).)*?)```\n\ngives `([^\n]*)`\.", PAGE, re.DOTALL)


def test_every_program_of_the_page_says_what_it_gives() -> None:
    assert len(EXAMPLES) == len(re.findall(r"```(?:javascript|typescript|csharp)\n", PAGE)) >= 4


@pytest.mark.parametrize(
    ("clr", "name", "program", "gives"),
    [("coreclr" if SWITCH in program else "mono", name, program, gives) for name, program, gives in EXAMPLES],
    indirect=["clr"],
)
def test_a_program_of_the_page_gives_what_it_says(
    start_edge: StartRuntime, name: str, program: str, gives: str
) -> None:
    language = by_name(name)
    assert language is not None
    # It is the program that wants CoreCLR.
    answer = start_edge({SWITCH: ""}).call(program, target="/acme?name=Anna", kind=language.content_type)
    assert (answer.status, answer.body.decode()) == (200, gives)


def test_the_table_has_every_language_with_all_that_says_it() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(LANGUAGES)
    for language, row in zip(LANGUAGES, rows, strict=True):
        assert f"`{language.content_type}`" in row
        assert f"`language={language.name}`" in row
        assert all(f"`{alias}`" in row for alias in language.aliases)

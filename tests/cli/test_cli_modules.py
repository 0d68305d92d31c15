"""`sandpost module ..` as an operator meets it; the installation itself is scripted."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sandpost.config.table import BY_NAME
from sandpost.modules.starter import STARTERS
from support.builder import SETTINGS, Bench, Said, archive, good
from support.command import Run, runner


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench(msgspec.structs.replace(SETTINGS, count=100)) as made:
        yield made


@pytest.fixture
def command(bench: Bench) -> Run:
    bench.proxy.answer = good
    return runner(bench.made)


def test_a_modules_way_from_add_to_rm(bench: Bench, command: Run) -> None:
    done = command("module", "add", "npm:a@1.0.0", "npm:@s/b@2.0.0")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
        ["npm:a@1.0.0", "available"],
        ["npm:@s/b@2.0.0", "available"],
    ]
    listed = command("module", "ls").stdout
    assert "npm:@s/b@2.0.0  available  12 B      2  -" in listed
    shown = command("module", "show", "npm:a@1.0.0").stdout
    assert "a@1.0.0  sha512-x" in shown
    assert "scripts  none were run" in shown
    assert json.loads(command("module", "show", "npm:a@1.0.0", "--json").stdout)["integrity"] == {"a@1.0.0": "sha512-x"}
    assert command("module", "rm", "npm:a@1.0.0").stdout == "module npm:a@1.0.0 removed\n"
    assert json.loads(command("module", "rm", "npm:@s/b@2.0.0", "--json").stdout) == {"removed": "npm:@s/b@2.0.0"}
    assert command("module", "ls").stdout.startswith("there is no module: `sandpost module add")


def test_add_says_what_a_module_waits_for_and_why_it_failed(bench: Bench, command: Run) -> None:
    said = iter([Said(b'{"away": true, "reason": "nobody\\u001b[2Jthere"}', 424)])
    bench.proxy.answer = lambda _: next(said, Said(b'{"away": false, "reason": "no such version"}', 422))
    done = command("module", "add", "npm:a@1.0.0")
    assert done.returncode == 5
    # Nothing that a terminal would obey.
    assert "npm:a@1.0.0: nobody?[2Jthere; next try in 5 s" in done.stderr
    assert "no such version" in done.stdout
    gone = command("module", "gc")
    assert gone.stdout == "npm:a@1.0.0 removed (failed)\n1 removed, 0 B freed\n"


def test_no_wait_comes_back_at_once(bench: Bench, command: Run) -> None:
    bench.proxy.answer = lambda order: Said(archive(order), after=1)
    done = command("module", "add", "npm:later@1.0.0", "--no-wait", "--json")
    assert [one["state"] for one in json.loads(done.stdout)] == ["queued"]
    bench.until("npm:later@1.0.0", "available")


def test_scripts_are_asked_for_by_a_flag(bench: Bench, command: Run) -> None:
    assert command("module", "add", "npm:scripted@1.0.0", "--scripts").returncode == 0
    assert bench.proxy.calls[-1].order["scripts"] is True
    assert "its own were run" in command("module", "show", "npm:scripted@1.0.0").stdout


def test_older_versions_go_as_gc_is_told(command: Run) -> None:
    assert command("module", "add", "npm:g@1.0.0", "npm:g@1.1.0").returncode == 0
    assert command("module", "gc", "--keep", "1", "--older-than", "1h").stdout == "0 removed, 0 B freed\n"
    assert command("module", "gc", "--keep", "1").stdout == "npm:g@1.0.0 removed (available)\n1 removed, 12 B freed\n"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["add", "lodash"], 4, "is no module: write one such as `npm:lodash@4.17.21`"),
        (["add", "npm:lodash@^4"], 4, "`^4` is a range"),
        (["add"], 2, "Missing argument"),
        (["rm", "npm:nobody@1.0.0"], 4, "there is no module `npm:nobody@1.0.0`"),
        (["show", "npm:nobody@1.0.0"], 4, "there is no module `npm:nobody@1.0.0`: `sandpost module ls` lists them"),
        (["show", "pypi:No_Body==1"], 4, "there is no module `pypi:no-body==1`: `sandpost module ls` lists them"),
        (["gc", "--older-than", "soon"], 4, "older_than"),
        (["gc", "--keep", "-1"], 2, "--keep"),
        (["ad"], 2, "Did you mean `add`?"),
    ],
)
def test_what_is_wrong_is_told_in_a_line_or_two(command: Run, arguments: list[str], code: int, told: str) -> None:
    done = command("module", *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_the_starting_set_is_asked_for_by_one_command(command: Run) -> None:
    done = command("module", "starter", "--json")
    assert done.returncode == 0, done.stderr
    found = {one["spec"]: one["state"] for one in json.loads(done.stdout)}
    assert found == {one.spec: "available" for one in STARTERS}


def test_of_the_starting_set_comes_what_has_a_registry() -> None:
    with Bench(msgspec.structs.replace(SETTINGS, pypi="", count=100)) as bench:
        done = runner(bench.made)("module", "starter", "--json")
        assert done.returncode == 0, done.stderr
        assert {one["registry"] for one in json.loads(done.stdout)} == {"npm"}
    with Bench(msgspec.structs.replace(SETTINGS, npm="", pypi="")) as bench:
        done = runner(bench.made)("module", "starter")
        assert done.returncode == 4
        assert "is not set" in done.stderr


PAGE = (Path(__file__).parents[2] / "docs" / "modules.md").read_text()


def test_the_page_lists_the_starting_set() -> None:
    rows = [f"| `{one.spec}` | {one.licence} | {one.purpose} |" for one in STARTERS]
    assert "|---|---|---|\n" + "\n".join(rows) + "\n" in PAGE


def test_the_commands_of_the_page_work(bench: Bench, command: Run) -> None:
    for spec in bench.specs():
        bench.remove(spec)
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(lines) > 5
    for line in lines:
        program, *arguments = line.split()
        assert program == "sandpost"
        done = command(*arguments)
        assert done.returncode == 0, (line, done.stderr)


def test_the_settings_of_the_page_are_taken() -> None:
    [text] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    given = {f"modules.{name}": value for name, value in tomllib.loads(text)["modules"].items()}
    assert given.keys() == {"modules.npm", "modules.pypi", "modules.hosts"}
    for name, value in given.items():
        BY_NAME[name].kind.parse(value)

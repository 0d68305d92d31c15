"""C# in JavaScript by Edge.js, as the talk shows it, within a sandbox's default limits."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.edge import ENDS, has_its_word, is_walled_in
from support.platform import Platform
from support.waiting import until

TALK = """return function (context, cb) {
    require('edge').func(function () {/*
        async (dynamic data) => { return "Hello, " + data.name + "!"; }
    */})(context.data, cb);
}"""
DIRECT = """return require('edge').func(function () {/*
    async (dynamic context) => { return "Hello, " + context.data.name + "!"; }
*/})"""


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    with Platform() as platform:
        yield platform


@pytest.mark.parametrize("program", [TALK, DIRECT, TALK.replace("'edge'", "'edge-js'")])
def test_the_talks_example_as_it_is_written(running: Platform, program: str) -> None:
    for name in ("Anna", "Bert"):
        answer = running.call("talk", program, f"name={name}")
        assert (answer.status, answer.json) == (200, f"Hello, {name}!"), answer


def test_compilations_fit_in_64_mib(running: Platform) -> None:
    assert running.api("PUT", "/api/tenants/small", {"limits": {"memory": "64MiB"}}).status == 201
    for word in ("Hello", "Again"):
        assert running.call("small", TALK.replace("Hello", word), "name=Anna").json == f"{word}, Anna!"


@pytest.mark.parametrize(("code", "word"), ENDS)
def test_an_end_by_net_has_its_word(running: Platform, code: str, word: str) -> None:
    has_its_word(running, f"ends-{word}", code, word)


def test_the_walls_are_the_same_for_native_code(running: Platform) -> None:
    is_walled_in(running, "walls")


def test_a_known_source_is_not_compiled_in_the_next_sandbox(running: Platform) -> None:
    program = """
      const children = process.getBuiltinModule('child_process');
      const { spawnSync } = children;
      let compiled = 0;
      children.spawnSync = (...given) => { compiled++; return spawnSync(...given); };
      const edge = require('edge');
      return (context, cb) => {
        if (context.data.end) process.exit(0);
        edge.func(`async (dynamic x) => x + "!"`)('ready', (error, value) => cb(error, [value, compiled]));
      }"""
    assert running.call("known", program).json == ["ready!", 1]
    # A worker has fetched it; any of them sends it on.
    until(lambda: list(Path(running.host.state_dir, "code", "known").glob("*.made")), "the assembly is kept")
    running.call("known", program, "end=1")
    assert [running.call("known", program).json for _ in range(4)] == [["ready!", 0]] * 4

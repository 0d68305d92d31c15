"""Modules from the registry to the program: added while sandboxes run, seen at once, gone when removed."""

from collections.abc import Iterator

import pytest

from support import module_world
from support.module_world import World


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("runc", marks=pytest.mark.engine("runc")),
        pytest.param("runsc", marks=(pytest.mark.engine("runsc"), pytest.mark.long)),
    ],
)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with module_world.world(tmp_path_factory.mktemp("registries"), engine_runtime=request.param) as made:
        yield made


def test_a_program_uses_a_module_from_the_moment_it_is_added_until_it_is_removed(world: World) -> None:
    running = world.platform
    program = "return (cb) => cb(null, require('ms')(60000));"
    # The sandbox is there before the module.
    refused = running.call("acme", program)
    assert (refused.status, refused.json["reason"]) == (400, "compilation_failed")
    assert "`sandpost module add npm:ms@" in refused.json["message"]
    world.there("npm:ms@2.1.3")
    assert running.call("acme", program + " // now").json == "1m"
    assert running.command("module", "rm", "npm:ms@2.1.3").returncode == 0
    gone = running.call("acme", program + " // no more")
    assert gone.status == 400
    assert "`sandpost module add npm:ms@" in gone.json["message"]


def test_what_it_depends_on_and_the_version_it_names_are_found(world: World) -> None:
    world.there("npm:debug@4.4.1")
    world.there("npm:lodash@4.17.21")
    running = world.platform
    assert running.call("acme", "return (cb) => cb(null, require('debug').humanize(60000));").json == "1m"
    named = "// sandpost: modules=lodash@4.17.21\nreturn (cb) => cb(null, require('lodash').VERSION);"
    assert running.call("acme", named).json == "4.17.21"


def test_a_program_in_python_imports_what_it_chose(world: World) -> None:
    world.there("pypi:httpx==0.28.1")
    program = (
        "# sandpost: language=python modules=httpx==0.28.1\nimport httpx\n"
        "def main(context):\n    return [httpx.__version__, httpx.__file__]\n"
    )
    answer = world.platform.call("acme", program)
    assert answer.json == ["0.28.1", "/modules/pypi/httpx/0.28.1/httpx/__init__.py"], answer.body

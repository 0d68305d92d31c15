"""C# on CoreCLR, in a sandbox that has it: Edge.js' own switch, within the default limits, on either engine."""

from collections.abc import Iterator

import pytest

from support import gvisor
from support.edge import ENDS, has_its_word, is_walled_in
from support.platform import Platform

SWITCH = "process.env.EDGE_USE_CORECLR = '1';\n"
ENGINES = ["runc", "runsc"]


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    gvisor.runsc()
    with Platform(image_coreclr="true") as platform:
        yield platform


def tenant(running: Platform, name: str, engine: str, **limits: str) -> str:
    full = f"{name}-{engine}"
    assert running.api("PUT", f"/api/tenants/{full}", {"engine": engine, "limits": limits}).status in (200, 201)
    return full


@pytest.mark.parametrize("engine", ENGINES)
def test_a_program_that_wants_it_has_it_and_others_have_mono(running: Platform, engine: str) -> None:
    program = """return require('edge').func(`async (dynamic context) => {
      await Task.Delay(1);
      return context.data.name + " on " + Environment.Version; }`)"""
    core, mono = tenant(running, "core", engine), tenant(running, "mono", engine)
    for _ in range(2):
        answer = running.call(core, SWITCH + program, "name=Anna")
        assert (answer.status, answer.json) == (200, "Anna on 8.0.4"), answer
    assert running.call(mono, program, "name=Anna").json.startswith("Anna on 4.0.")


@pytest.mark.parametrize("engine", ENGINES)
def test_compilations_fit_in_64_mib(running: Platform, engine: str) -> None:
    small = tenant(running, "small", engine, memory="64MiB")
    for word in ("Hello", "Again"):
        program = f"return require('edge').func('async (dynamic context) => \"{word}, \" + context.data.name')"
        answer = running.call(small, SWITCH + program, "name=Anna")
        assert (answer.status, answer.json) == (200, f"{word}, Anna"), answer


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("code", "word"), ENDS)
def test_an_end_by_net_has_its_word(running: Platform, engine: str, code: str, word: str) -> None:
    has_its_word(running, tenant(running, f"ends-{word}", engine), code, word, SWITCH)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_walls_are_the_same_for_native_code(running: Platform, engine: str) -> None:
    is_walled_in(running, tenant(running, "walls", engine), SWITCH)

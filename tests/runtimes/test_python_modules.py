"""Programs in Python that use packages of PyPI: one set a process, taken with the first load."""

from pathlib import Path

import pytest

from support.modules import pypi
from support.runtime import Answer, Runtime, StartRuntime, code_hash

SAYS = "import counter\ndef main(context):\n    return counter.VERSION"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a few packages."""
    ready = tmp_path / "ready"
    for version in ("1.0", "1.10", "1.9", "2.0rc1", "2.0.dev3"):
        pypi(ready, "counter", version, {"counter/__init__.py": f"VERSION = '{version}'"})
    pypi(
        ready, "typing-more", "1.0", {"typing_more.py": "import helper\nVALUE = helper.VALUE", "helper.py": "VALUE = 7"}
    )
    for version in ("3.0a2", "3.0a10", "3.0b1", "3.0.dev1"):
        pypi(ready, "early", version, {"early.py": f"VERSION = '{version}'"})
    for version in ("1!0.1", "9.0", "9.0.post1", "9.0+local"):
        pypi(ready, "epochs", version, {"epochs.py": f"VERSION = '{version}'"})
    return ready


@pytest.fixture
def modular(start_python: StartRuntime, store: Path) -> Runtime:
    """A runtime that sees the store."""
    return start_python({"SANDPOST_MODULES": str(store)})


def load(runtime: Runtime, code: str, modules: str = "") -> Answer:
    return runtime.load(code, **({"x-sandpost-modules": modules} if modules else {}))


def call(runtime: Runtime, code: str, modules: str = "") -> object:
    answer = load(runtime, code, modules)
    assert answer.status == 204, answer.body
    answer = runtime.request("GET", "/acme", {"x-sandpost-op": "call", "x-sandpost-code": code_hash(code)})
    assert answer.status == 200, answer.body
    return answer.json


@pytest.mark.parametrize(
    ("modules", "name", "version"),
    [
        ("counter==1.9", "counter", "1.9"),
        ("counter==2.0rc1", "counter", "2.0rc1"),
        ("counter", "counter", "1.10"),
        ("early", "early", "3.0b1"),
        ("epochs", "epochs", "1!0.1"),
    ],
)
def test_a_program_has_the_version_that_it_chooses(modular: Runtime, modules: str, name: str, version: str) -> None:
    code = f"import {name}\ndef main(context):\n    return {name}.VERSION"
    assert call(modular, code, modules) == version


def test_several_modules_come_with_what_they_need(modular: Runtime) -> None:
    code = "import counter, typing_more\ndef main(context):\n    return [counter.VERSION, typing_more.VALUE]"
    assert call(modular, code, "counter==1.9,typing-more==1.0") == ["1.9", 7]


def test_a_process_has_the_set_of_its_first_load_and_refuses_others(modular: Runtime) -> None:
    assert modular.request("GET", "/", {"x-sandpost-op": "warm"}).status == 204
    assert call(modular, SAYS, "counter==1.9") == "1.9"
    assert call(modular, f"# again\n{SAYS}", "counter==1.9") == "1.9"
    for other in ("counter==1.0", ""):
        refused = load(modular, f"# other\n{SAYS}", other)
        assert (refused.status, refused.headers["x-sandpost-error"]) == (409, "other_modules")
        assert refused.json["message"] == "This sandbox runs programs with modules=counter==1.9, and no others."


def test_a_process_that_began_without_modules_takes_none_later(modular: Runtime) -> None:
    assert load(modular, "def main(context): pass").status == 204
    refused = load(modular, SAYS, "counter==1.9")
    assert (refused.status, refused.json["reason"]) == (409, "other_modules")
    assert refused.json["message"] == "This sandbox runs programs with no modules, and no others."


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        (
            "counter==3.0",
            "of counter there is 1.10, 1.9, 1.0, 2.0rc1, 2.0.dev3: `sandpost module add pypi:counter==3.0`",
        ),
        ("nothing", "nothing is not installed: `sandpost module add pypi:nothing==VERSION`"),
        ("counter==1.9,nothing==1.0", "nothing is not installed: `sandpost module add pypi:nothing==1.0`"),
    ],
)
def test_what_is_not_installed_fails_the_load_and_takes_no_set(
    modular: Runtime, store: Path, modules: str, words: str
) -> None:
    answer = load(modular, SAYS, modules)
    assert (answer.status, answer.json["reason"]) == (400, "compilation_failed")
    assert answer.json["message"] == f"Compilation failed: {words}"
    # Nothing is broken: no successor is asked for.
    assert "x-sandpost-replace" not in answer.headers
    pypi(store, "nothing", "1.0", {"nothing.py": ""})
    pypi(store, "counter", "3.0", {"counter.py": "VERSION = '3.0'"})
    assert load(modular, SAYS, modules).status == 204


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("counter", "choose it in the first line, `modules=counter==1.10` (line 2)"),
        ("typing_more", "choose it in the first line, `modules=typing-more==1.0` (line 2)"),
        ("nothing", "if PyPI calls it so, it is not installed: `sandpost module add pypi:nothing==VERSION` (line 2)"),
    ],
)
def test_an_import_that_finds_nothing_is_told_what_to_do(modular: Runtime, name: str, words: str) -> None:
    body = modular.call(f"\nimport {name}\ndef main(context): pass").json
    assert (body["reason"], body["line"]) == ("compilation_failed", 2)
    assert body["message"] == f"Compilation failed: No module named '{name}': {words}"
    for code in (
        f"def main(context):\n    import {name}",
        f"async def main(context):\n    import {name}",
        f"def main(context, request, response):\n    import {name}",
        f"async def app(scope, receive, send):\n    import {name}",
    ):
        answer = modular.call(code)
        assert (answer.status, answer.headers["x-sandpost-source"]) == (400, "compiler")
        assert (answer.json["reason"], answer.json["line"]) == ("compilation_failed", 2)
        assert answer.json["message"] == body["message"]


def test_an_import_that_finds_nothing_and_has_a_status_keeps_it(modular: Runtime) -> None:
    code = """
def main(context):
    try:
        import nothing
    except ImportError as error:
        error.status_code = 503
        raise"""
    answer = modular.call(code)
    assert (answer.status, answer.json["reason"]) == (503, "script_error")
    assert "`sandpost module add pypi:nothing==VERSION`" in answer.json["message"]


def test_a_package_that_programs_can_do_without_is_simply_missing(modular: Runtime) -> None:
    code = """
import importlib.util
try:
    import counter
except ImportError as error:
    found = str(error)
def main(context):
    return [found, importlib.util.find_spec("counter") is None]"""
    assert modular.call(code).json == ["No module named 'counter'", True]

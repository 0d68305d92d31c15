"""The examples of docs/modules.md give what they say."""

import re
from pathlib import Path

from support.modules import npm, pypi
from support.runtime import Answer, Runtime, StartRuntime, code_hash

PAGE = (Path(__file__).parents[2] / "docs" / "modules.md").read_text()


def example(language: str) -> str:
    (found,) = [code for code in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if "modules=" in code]
    return str(found)


def run(runtime: Runtime, code: str, modules: str) -> Answer:
    loaded = runtime.load(code, **{"x-sandpost-modules": modules})
    assert loaded.status == 204, loaded.body
    return runtime.request("GET", "/acme", {"x-sandpost-op": "call", "x-sandpost-code": code_hash(code)})


def test_the_example_of_npm(start_runtime: StartRuntime, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    npm(ready, "lodash", "4.17.21", {"index.js": "exports.capitalize = (t) => t[0].toUpperCase() + t.slice(1)"})
    npm(ready, "async", "3.2.6", {"index.js": ""})
    runtime = start_runtime({"SANDPOST_MODULES": str(ready)})
    assert run(runtime, example("javascript"), "async@3.2.6,lodash@4.17.21").json == "Hello"


def test_the_example_of_pypi(start_python: StartRuntime, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    pypi(ready, "httpx", "0.28.1", {"httpx/__init__.py": "__version__ = '0.28.1'"})
    pypi(ready, "attrs", "25.4.0", {"attr.py": ""})
    runtime = start_python({"SANDPOST_MODULES": str(ready)})
    assert run(runtime, example("python"), "attrs==25.4.0,httpx==0.28.1").json == "0.28.1"

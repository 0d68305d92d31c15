"""Modules of the store in programs, through the whole platform, on runc and on runsc."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import gvisor
from support.modules import addon, npm, pypi
from support.platform import Platform, platform
from support.waiting import until

COUNTER = "let n = 0; exports.next = () => ++n; exports.version = require('./package.json').version;"
SAYS = "import said\ndef main(context):\n    import os\n    return [said.VERSION, os.getpid() > 0]"


@pytest.fixture(scope="module", params=["runc", "runsc"])
def modular(request: pytest.FixtureRequest) -> Iterator[Platform]:
    """A platform with a few modules in its store."""
    if request.param == "runsc":
        gvisor.runsc()
    with platform(pool_size="1", engine_runtime=request.param) as started:
        ready = store(started)
        for version in ("1.0.0", "2.0.0"):
            npm(ready, "counter", version, {"index.js": COUNTER})
            pypi(ready, "said", version, {"said/__init__.py": f"VERSION = '{version}'"})
        yield started


def store(started: Platform) -> Path:
    return started.state_dir / "modules" / "ready"


def sandboxes(started: Platform, tenant: str) -> list[dict[str, Any]]:
    """Those that take calls."""
    found: list[dict[str, Any]] = started.api("GET", f"/api/tenants/{tenant}/sandboxes").json["sandboxes"]
    return [one for one in found if one["phase"] == "assigned"]


def python(modules: str, code: str = SAYS) -> str:
    return f"# sandpost: language=python{f' modules={modules}' if modules else ''}\n{code}"


def test_each_program_gets_the_version_that_it_names(modular: Platform) -> None:
    plain = "return cb => cb(null, require('counter').version)"
    assert modular.call("acme", plain).json == "2.0.0"
    assert modular.call("acme", f"// sandpost: modules=counter@1.0.0\n{plain}").json == "1.0.0"
    assert modular.call("acme", "return cb => cb(null, require('counter@1.0.0').version)").json == "1.0.0"
    module = (
        "// sandpost: modules=counter@1.0.0\nimport { version } from 'counter';\nexport default cb => cb(null, version)"
    )
    assert modular.call("acme", module).json == "1.0.0"
    typed = "import { version } from 'counter';\nexport default (cb: any): void => cb(null, version)"
    assert modular.call("acme", typed, headers={"Content-Type": "application/typescript"}).json == "2.0.0"
    # All of them in one sandbox.
    assert len(sandboxes(modular, "acme")) == 1


def test_a_program_that_is_called_by_its_hash_keeps_its_choice(modular: Platform) -> None:
    code = "// sandpost: modules=counter@1.0.0\nreturn cb => cb(null, require('counter').version)"
    named = modular.call("by-hash", code).headers["x-sandpost-code"]
    assert modular.call("by-hash", "return cb => process.exit(1)").json["reason"] == "exit"
    assert modular.call("by-hash", "", f"webtask_code={named}").json == "1.0.0"


def test_what_comes_into_the_store_is_seen_by_sandboxes_that_run(modular: Platform) -> None:
    code = "return cb => { try { cb(null, require('late').version) } catch (e) { cb(null, e.message) } }"
    missing = "Cannot find module 'late': it is not installed: `sandpost module add npm:late@VERSION`"
    assert modular.call("late", code).json == missing
    npm(store(modular), "late", "1.0.0", {"index.js": COUNTER})
    assert modular.call("late", code).json == "1.0.0"
    npm(store(modular), "late", "1.1.0", {"index.js": COUNTER})
    assert modular.call("late", f"// anew\n{code}").json == "1.1.0"
    pinned = f"// sandpost: modules=late@2.0.0\n{code}"
    failed = modular.call("late", pinned)
    assert (failed.status, failed.json["reason"]) == (400, "compilation_failed")
    assert "of late there is 1.1.0, 1.0.0: `sandpost module add npm:late@2.0.0`" in failed.json["message"]
    ranged = modular.call("late", f"// sandpost: modules=late@^1\n{code}")
    assert (ranged.status, ranged.json["reason"]) == (400, "compilation_failed")
    assert "'^1' is not one exact version; of late there is 1.1.0, 1.0.0" in ranged.json["message"]
    npm(store(modular), "late", "2.0.0", {"index.js": COUNTER})
    assert modular.call("late", pinned).json == "2.0.0"
    missing_python = modular.call("late", python("late==1.0", "def main(context):\n    return 1"))
    assert "late is not installed: `sandpost module add pypi:late==1.0`" in missing_python.json["message"]
    pypi(store(modular), "late", "1.0", {"late.py": ""})
    assert modular.call("late", python("late==1.0", "import late\ndef main(context):\n    return 1")).json == 1


def test_a_module_in_machine_code_runs(modular: Platform) -> None:
    ready = store(modular)
    folder = npm(ready, "native", "1.0.0", {"index.js": "module.exports = require('./said.node')"})
    addon(folder / "node_modules" / "native" / "out" / "said.node", "from C")
    shutil.move(
        folder / "node_modules" / "native" / "out" / "said.node", folder / "node_modules" / "native" / "said.node"
    )
    assert modular.call("acme", "return cb => cb(null, require('native'))").json == "from C"


def test_each_set_of_python_runs_in_a_sandbox_of_its_own(modular: Platform) -> None:
    for _ in range(2):
        assert modular.call("snake", python("said==1.0.0")).json == ["1.0.0", True]
        assert modular.call("snake", python("said==2.0.0")).json == ["2.0.0", True]
        failed = modular.call("snake", python(""))
        assert failed.json["message"].endswith(
            "No module named 'said': choose it in the first line, `modules=said==2.0.0` (line 2)"
        )
        assert modular.call("snake", "return cb => cb(null, require('counter').version)").json == "2.0.0"
    found = [(one["runtime"], one["modules"]) for one in sandboxes(modular, "snake")]
    assert sorted(found) == [("node", ""), ("python", ""), ("python", "said==1.0.0"), ("python", "said==2.0.0")]


def test_a_fifth_set_takes_the_place_of_the_longest_idle_one(modular: Platform) -> None:
    for number in range(4):
        pypi(store(modular), f"m{number}", "1.0", {f"m{number}.py": ""})
    sets = ["said==1.0.0", "said==2.0.0", "m0==1.0", "m1==1.0", "m2==1.0"]
    for modules in sets[:4]:
        assert modular.call("many", python(modules, "def main(context): return 'ok'")).json == "ok"
    refused = modular.call("many", python(sets[4], "def main(context): return 'ok'"))
    assert (refused.status, refused.json["reason"], refused.headers["retry-after"]) == (429, "too_many_sets", "1")
    # A moment later the first of them has been idle for long enough.
    until(lambda: modular.call("many", python(sets[4], "def main(context): return 'ok'")).status == 200, "a fifth set")
    there = {one["modules"] for one in sandboxes(modular, "many")}
    assert sets[4] in there
    assert len(there) == 4
    time.sleep(0.1)
    assert modular.call("many", python(sets[4], "def main(context): return 'ok'")).json == "ok"


def test_what_cannot_be_chosen_costs_no_sandbox(modular: Platform) -> None:
    for code in (
        "// sandpost: modules=counter@1.0.0,counter@2.0.0\nreturn 1",
        python("said>=1.0"),
        "// sandpost: modules=../x\nreturn 1",
    ):
        refused = modular.call("strict", code)
        assert (refused.status, refused.json["reason"]) == (400, "invalid_code")
    assert sandboxes(modular, "strict") == []


def test_the_store_is_the_apis_to_write(modular: Platform) -> None:
    for path in ("", "npm", "pypi"):
        assert (store(modular) / path).stat().st_uid == modular.host.users.api

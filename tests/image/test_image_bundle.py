"""A runtime's modules in one file."""

import subprocess
from pathlib import Path

import pytest

from sandpost.image.bundle import bundle
from sandpost.model.errors import HostUnfit

NODE = sorted(Path("/var/lib/sandpost/image").glob("*/rootfs/usr/local/bin/node"))
MODULES = {
    "main.js": "'use strict';\nconst a = require('./a.js');\nconst { b } = require('./b.js');\nsay(`${a()} ${b}`);\n",
    "a.js": "'use strict';\n\nconst b = require('./b.js');\nsay('a runs');\nmodule.exports = () => `a with ${b.b}`; // its end",
    "b.js": "'use strict';\nsay('b runs');\nconst b = typeof this;\nmodule.exports = { b: `b ${b}` };\n",
    "idle.js": "say('nobody requires this');\n",
}
SAY = "const say = (text) => process.stdout.write(`${text}\\n`);\n"


def test_modules_run_once_in_the_order_of_their_need(tmp_path: Path) -> None:
    text, merged = bundle(MODULES, "main.js")
    assert merged == {"main.js", "a.js", "b.js"}
    (tmp_path / "main.js").write_text(SAY + text)
    assert NODE, "no image is built yet: run scripts/install"
    said = subprocess.run([NODE[0], "main.js"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=10)
    assert said.stdout.splitlines() == ["b runs", "a runs", "a with b object b object"]


def test_what_is_required_in_a_function_alone_runs_when_that_is_called(tmp_path: Path) -> None:
    modules = {
        "main.js": "const late = require('./a.js');\nconst b = () => require('./b.js');\nsay('main');\nsay(late());\nsay(late() + b());\n",
        "a.js": "require('./b.js');\nconst late = () => require('./late.js');\nmodule.exports = () => late();\n",
        "b.js": "say('b runs');\nmodule.exports = 'b';\n",
        "late.js": "const own = require('./own.js');\nconst b = require('./b.js');\nsay('late runs');\nmodule.exports = `late with ${own} ${b}`;",
        "own.js": "say('own runs');\nmodule.exports = 'own';\n",
    }
    text, merged = bundle(modules, "main.js")
    assert merged == set(modules)
    (tmp_path / "main.js").write_text(SAY + text)
    said = subprocess.run([NODE[0], "main.js"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=10)
    late = "late with own b"
    assert said.stdout.splitlines() == ["b runs", "main", "own runs", "late runs", late, f"{late}b"]


def test_what_requires_nothing_of_ours_stays_as_it_is() -> None:
    text = "require('http').createServer();\n"
    assert bundle({"main.js": text, "x.js": ""}, "main.js") == (text, frozenset({"main.js"}))


def test_a_circle_and_a_missing_module_are_named() -> None:
    with pytest.raises(HostUnfit, match=r"main\.js -> a\.js -> main\.js"):
        bundle({"main.js": "require('./a.js')", "a.js": "require('./main.js')"}, "main.js")
    with pytest.raises(HostUnfit, match=r"main\.js requires a\.js"):
        bundle({"main.js": "require('./a.js')"}, "main.js")

"""Programs that use packages of npm: which version they get, how one is loaded, whose it is, and what is refused."""

import shutil
import textwrap
from pathlib import Path

import pytest

from support.modules import addon, npm
from support.runtime import Runtime, StartRuntime, code_hash

MiB = 1 << 20
COUNTER = "let n = 0; exports.next = () => ++n; exports.version = require('./package.json').version;"
REQUIRED = "const m = require(%r); return cb => cb(null, m.version);"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with a few packages."""
    ready = tmp_path / "ready"
    for version in ("4.9.0", "4.17.21", "4.17.20", "5.0.0-rc.10", "5.0.0-rc.9"):
        npm(
            ready,
            "counter",
            version,
            {"index.js": COUNTER, "fp.js": "module.exports = 'fp of ' + require('./index').version"},
        )
    npm(ready, "@scope/x", "1.2.3", {"index.js": COUNTER, "sub.js": "module.exports = 'sub'"})
    npm(ready, "socket.io", "2.0.0", {"index.js": COUNTER})
    npm(ready, "early", "1.0.0-beta.2", {"index.js": COUNTER})
    npm(ready, "early", "1.0.0-beta.11", {"index.js": COUNTER})
    return ready


@pytest.fixture
def modular(start_runtime: StartRuntime, store: Path) -> Runtime:
    """A runtime that sees the store."""
    return start_runtime({"SANDPOST_MODULES": str(store)})


def call(runtime: Runtime, code: str, modules: str = "") -> object:
    """Load with a choice of modules, call, and return the result."""
    code = textwrap.dedent(code)
    answer = runtime.load(code, **({"x-sandpost-modules": modules} if modules else {}))
    assert answer.status == 204, answer.body
    answer = runtime.request("GET", "/acme", {"x-sandpost-op": "call", "x-sandpost-code": code_hash(code)})
    assert answer.status == 200, answer.body
    return answer.json


@pytest.mark.parametrize(
    ("wanted", "chosen", "version"),
    [
        ("counter", "", "4.17.21"),
        ("counter", "counter@4.9.0", "4.9.0"),
        ("counter", "early,counter@4.17.20", "4.17.20"),
        ("counter@5.0.0-rc.9", "", "5.0.0-rc.9"),
        ("counter@4.17.20", "counter@4.9.0", "4.17.20"),
        ("@scope/x", "", "1.2.3"),
        ("@scope/x@1.2.3", "", "1.2.3"),
        ("socket.io", "socket.io@2.0.0", "2.0.0"),
        ("early", "", "1.0.0-beta.11"),
    ],
)
def test_the_version_is_the_calls_else_the_programs_else_the_newest(
    modular: Runtime, wanted: str, chosen: str, version: str
) -> None:
    assert call(modular, REQUIRED % wanted, chosen) == version
    module = f"import m, {{ version }} from {wanted!r};\nexport default cb => cb(null, [m.version, version])"
    assert call(modular, module, chosen) == [version, version]
    later = f"return async cb => {{ const m = await import({wanted!r}); return [m.version, m.default.version] }}"
    assert call(modular, later, chosen) == [version, version]


def test_a_file_in_a_package(modular: Runtime) -> None:
    code = """return cb => cb(null, [require('counter/fp'), require('counter@4.9.0/fp.js'), require('@scope/x@1.2.3/sub'),
      require.resolve('counter/fp').split('/').slice(-5).join('/'), require.resolve('fs')])"""
    assert call(modular, code) == [
        "fp of 4.17.21",
        "fp of 4.9.0",
        "sub",
        "counter/4.17.21/node_modules/counter/fp.js",
        "fs",
    ]


def test_two_versions_side_by_side_in_one_program_and_in_two(modular: Runtime) -> None:
    code = "const [a, b] = [require('counter@4.9.0'), require('counter')]; a.next(); return cb => cb(null, [a.next(), b.next()])"
    assert call(modular, code) == [2, 1]
    for version in ("4.9.0", "4.17.20"):
        assert call(modular, f"// {version}\n" + REQUIRED % "counter", f"counter@{version}") == version


def test_each_program_has_an_instance_of_its_own(modular: Runtime) -> None:
    code = "// %d\nconst m = require('counter'); return cb => cb(null, m.next())"
    assert [call(modular, code % 1), call(modular, code % 2), call(modular, code % 1)] == [1, 1, 2]


def test_a_version_that_comes_later_is_found_at_once(modular: Runtime, store: Path) -> None:
    code = "return cb => { try { cb(null, require('late').version) } catch (e) { cb(null, e.code) } }"
    assert call(modular, code) == "MODULE_NOT_FOUND"
    npm(store, "late", "1.0.0", {"index.js": COUNTER})
    assert call(modular, code) == "1.0.0"


def test_a_program_keeps_the_version_that_it_got(modular: Runtime, store: Path) -> None:
    npm(store, "stays", "1.0.0", {"index.js": COUNTER})
    code = "return async (cb) => [require('stays').version, (await import('stays')).version, require('stays').next()]"
    assert call(modular, code) == ["1.0.0", "1.0.0", 1]
    npm(store, "stays", "2.0.0", {"index.js": COUNTER})
    assert call(modular, code) == ["1.0.0", "1.0.0", 2]
    assert call(modular, f"// anew\n{code}") == ["2.0.0", "2.0.0", 1]


def test_all_that_a_program_has_of_a_package_is_of_one_version(modular: Runtime, store: Path) -> None:
    files = {"index.js": COUNTER, "part.js": COUNTER}
    npm(store, "whole", "1.0.0", files)
    code = """
    let count = 0;
    return async cb => count++ === 0 ? require('whole').version
      : [require('whole/part').version, (await import('whole')).version]"""
    assert call(modular, code) == "1.0.0"
    npm(store, "whole", "2.0.0", files)
    assert call(modular, code) == ["1.0.0", "1.0.0"]
    # One that is gone leaves a newer one, not nothing.
    parts = "let count = 0; return async cb => count++ === 0 ? require('whole').version : require('whole/part').version"
    assert call(modular, parts) == "2.0.0"
    shutil.rmtree(store / "npm/whole/2.0.0")
    npm(store, "whole", "3.0.0", files)
    assert call(modular, parts) == "3.0.0"


def test_what_was_required_once_costs_no_look_at_the_files(modular: Runtime, store: Path) -> None:
    npm(store, "calls", "1.0.0", {"index.js": "exports.f = () => require('./g').g", "g.js": "exports.g = 1"})
    code = """
    return cb => { const at = process.hrtime.bigint();
      for (let n = 0; n < 100000; n++) require('calls').f();
      cb(null, Number(process.hrtime.bigint() - at) / 1e5) }"""
    call(modular, code)
    # Nanoseconds of two requires; a look at a file takes thousands.
    assert float(str(call(modular, code))) < 4000


NOT_FOUND = {
    "nothing": "it is not installed: `sandpost module add npm:nothing@VERSION`",
    "nothing@1.0.0": "it is not installed: `sandpost module add npm:nothing@1.0.0`",
    "@scope/y": "it is not installed: `sandpost module add npm:@scope/y@VERSION`",
    "counter@1.0.0": "of counter there is 4.17.21, 4.17.20, 4.9.0, 5.0.0-rc.10, 5.0.0-rc.9: `sandpost module add npm:counter@1.0.0`",
    "counter@^4": "'^4' is not one exact version; of counter there is 4.17.21, 4.17.20, 4.9.0, 5.0.0-rc.10, 5.0.0-rc.9",
    "counter@latest": "'latest' is not one exact version; of counter there is 4.17.21, 4.17.20, 4.9.0, 5.0.0-rc.10, 5.0.0-rc.9",
    "nothing@^4": "'^4' is not one exact version; nothing is not installed: `sandpost module add npm:nothing@VERSION`",
    "counter@": "there is no version behind `@`",
    "counter/nope": "counter 4.17.21 has no such file",
    "Counter!": "npm allows no such name",
    "node_modules": "npm allows no such name",
    "_x": "npm allows no such name",
    "@scope": "npm allows no such name",
    "a" * 215: "npm allows no such name",
    "c\u043eunter": "npm allows no such name",
    "..": "a program has no files beside it: it can use the modules built into Node, and those of npm that are installed",
    "./x": "a program has no files beside it: it can use the modules built into Node, and those of npm that are installed",
    "/etc/passwd": "a program has no files beside it: it can use the modules built into Node, and those of npm that are installed",
    "node:nothing": "it is not built into Node, and there are no modules by URL",
    "file:///etc/passwd": "it is not built into Node, and there are no modules by URL",
    "": "it has no name",
}


@pytest.mark.parametrize("name", NOT_FOUND, ids=ascii)
def test_what_is_not_there_is_refused_with_what_to_do(modular: Runtime, name: str) -> None:
    message = f"Cannot find module '{name}': {NOT_FOUND[name]}"
    body = modular.call(f"\n  require({name!r});").json
    assert (body["reason"], body["line"], body["column"]) == ("compilation_failed", 2, 3)
    assert body["message"] == f"Compilation failed: {message} (line 2, column 3)"
    body = modular.call(f"import fs from 'fs';\n  import x from {name!r};\nexport default cb => cb()").json
    assert body["message"] == f"Compilation failed: {message} (line 2, column 10)"
    code = f"export default async cb => {{ try {{ await import({name!r}) }} catch (e) {{ cb(null, [e.code, e.message]) }} }}"
    assert modular.call(code).json == ["MODULE_NOT_FOUND", message]


@pytest.mark.parametrize(
    "code",
    [
        "return cb => cb(null, require(%r))",
        "return async cb => require(%r)",
        "return async cb => { await null; return (await import(%r)).version }",
        "return cb => { try { require(%r) } catch (error) { cb(error) } }",
    ],
    ids=["thrown", "rejected", "import", "called back"],
)
def test_what_is_not_there_is_the_callers_fault_inside_the_function_too(modular: Runtime, code: str) -> None:
    for name, words in NOT_FOUND.items():
        answer = modular.call(code % name)
        assert (answer.status, answer.json["code"], answer.json["reason"]) == (400, 400, "compilation_failed"), name
        assert f"Cannot find module '{name}': {words}" in answer.json["message"]


@pytest.mark.parametrize(
    "name", ["../counter", "counter/../../x", "counter/..%2f..", "counter\0", "__proto__", "%2e%2e"]
)
def test_no_name_leads_out_of_the_store(modular: Runtime, store: Path, name: str) -> None:
    (store / "npm" / "counter" / "x.js").write_text("module.exports = 'out'")
    code = f"return cb => {{ try {{ cb(null, require({name!r})) }} catch (e) {{ cb(null, e.code) }} }}"
    assert modular.call(code).json in {"MODULE_NOT_FOUND", "ERR_INVALID_ARG_VALUE"}


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ("counter@1.0.0", "'counter@1.0.0': of counter there is 4.17.21,"),
        ("counter@^4", "'counter@^4': '^4' is not one exact version; of counter there is 4.17.21, 4.17.20, 4.9.0,"),
        (
            "nothing@>=1",
            "'nothing@>=1': '>=1' is not one exact version; nothing is not installed: `sandpost module add npm:",
        ),
        ("nothing", "'nothing': it is not installed: `sandpost module add npm:nothing@VERSION`"),
        ("counter@4.9.0,counter/fp", "'counter/fp': npm allows no such name"),
        ("counter@4.9.0,", "'': it has no name"),
        ("..", "'..': a program has no files beside it"),
    ],
)
def test_what_a_program_chooses_and_is_not_there_fails_at_its_load(modular: Runtime, chosen: str, words: str) -> None:
    answer = modular.load("return cb => cb(null, 1)", **{"x-sandpost-modules": chosen})
    assert (answer.status, answer.json["reason"]) == (400, "compilation_failed")
    assert f"Compilation failed: Cannot find module {words}" in answer.json["message"]
    # Nothing is remembered.
    assert modular.load("return cb => cb(null, 1)").status == 204


def test_a_name_is_text(modular: Runtime, store: Path) -> None:
    npm(store, "asks", "1.0.0", {"index.js": "module.exports = (id) => require(id)"})
    code = """
    const ids = [Symbol('a'), undefined, null, 5, {}, ['counter'], { toString() { throw new Error('trap') } }];
    const said = (ask, id) => { try { return typeof ask(id) } catch (e) { return e.code ?? e.message } };
    return cb => cb(null, [require, require('asks')].map((ask) => ids.map((id) => said(ask, id))))"""
    assert call(modular, code) == [["MODULE_NOT_FOUND"] * 6 + ["trap"], ["ERR_INVALID_ARG_TYPE"] * 7]


def test_dependencies_are_found_as_node_finds_them(modular: Runtime, store: Path) -> None:
    files = {
        "lib/main.js": "exports.seen = [require('deep').name, require('deep/data.json').a, require('./x').name, require('../index').name,"
        " module.parent === undefined || module.parent === null, require.main === module, typeof require.cache[__filename]]",
        "lib/x/index.js": "exports.name = 'x in a folder'; exports.late = () => require('deep').name",
        "index.js": "exports.name = 'index'",
        "../deep/package.json": '{"name": "deep", "exports": {".": {"require": "./r.js", "import": "./i.mjs"}, "./data.json": "./data.json"}}',
        "../deep/r.js": "exports.name = 'deep for require'",
        "../deep/i.mjs": "export const name = 'deep for import'",
        "../deep/data.json": '{"a": 1}',
        "m.mjs": "import { name } from 'deep'; import data from 'deep/data.json' with { type: 'json' };"
        " export default [name, data.a, import.meta.filename.split('/').pop(), import.meta.resolve('deep').split('/').pop()];",
        "node_modules/own/index.js": "exports.name = 'nested'",
        "circle/a.js": "exports.half = 1; const b = require('./b'); exports.b = b.seen",
        "circle/b.js": "exports.seen = require('./a').half",
    }  # fmt: skip
    npm(store, "tree", "1.0.0", files, main="lib/main")
    assert call(modular, "return cb => cb(null, require('tree').seen)") == [
        "deep for require", 1, "x in a folder", "index", True, False, "object",
    ]  # fmt: skip
    assert call(modular, "return cb => cb(null, require('tree/circle/a').b)") == 1
    assert call(modular, "import m from 'tree/m.mjs';\nexport default cb => cb(null, m)") == [
        "deep for import", 1, "m.mjs", "i.mjs",
    ]  # fmt: skip
    assert call(modular, "return cb => cb(null, require('tree/m.mjs').default[0])") == "deep for import"


def test_es_modules(modular: Runtime, store: Path) -> None:
    files = {
        "index.js": "import { twice } from './twice.js'; import cjs, { a } from './old.cjs'; import { ring } from './ring.js';"
        " export { a, ring }; export let n = 0; export const next = () => ++n; export default twice(cjs.a);",
        "twice.js": "export const twice = (x) => 2 * x;",
        "old.cjs": "exports.a = 21;",
        "ring.js": "import * as self from './ring.js'; import { n } from './index.js'; export const ring = () => typeof self.ring + n;",
        "waits.js": "export default await Promise.resolve('waited');",
        "throws.js": "throw new RangeError('at the top');",
        "later.js": "export default async () => (await import('./twice.js')).twice(4);",
    }
    npm(store, "esm", "1.0.0", files, type="module")
    code = "// %d\nimport m, { a, next, ring } from 'esm';\nexport default cb => cb(null, [m, a, next(), ring()])"
    # Of each program its own, too.
    assert [call(modular, code % n) for n in (1, 2, 1)] == [
        [42, 21, 1, "function1"],
        [42, 21, 1, "function1"],
        [42, 21, 2, "function2"],
    ]
    code = "const m = require('esm'); return cb => cb(null, [m.default, m.__esModule, m.next(), m.n])"
    assert call(modular, code) == [42, True, 1, 1]
    assert call(modular, "import m from 'esm/waits.js';\nexport default cb => cb(null, m)") == "waited"
    assert call(modular, "import m from 'esm/later.js';\nexport default async (cb) => m()") == 8
    body = modular.call("require('esm/waits.js')").json
    assert "Compilation failed: require() cannot be used on an ES module with top-level await" in body["message"]
    for code in ("require('esm/throws.js')", "import 'esm/throws.js';\nexport default cb => cb()"):
        for _ in range(2):
            body = modular.call(code).json
            assert (body["reason"], body["name"], body["details"]) == (
                "compilation_failed",
                "RangeError",
                "RangeError: at the top",
            )


def test_what_a_commonjs_file_exports_to_an_import(modular: Runtime, store: Path) -> None:
    files = {
        "index.js": "Object.defineProperty(exports, '__esModule', { value: true }); exports.a = 1; exports.default = 2;"
        " Object.defineProperty(exports, 'hidden', { get: () => 3 });"
        " Object.defineProperty(exports, 'throws', { enumerable: true, get() { throw new Error('trap') } });",
        "f.js": "module.exports = function named(a, b) {}; module.exports.more = 1;",
        "class.js": "module.exports = class { static made = 1 };",
        "text.js": "module.exports = 'text';",
        "null.js": "module.exports = null;",
    }
    npm(store, "old", "1.0.0", files)
    code = "import * as ns from 'old%s';\nexport default cb => cb(null, [Object.keys(ns).sort(), ns.hidden, typeof ns.default])"
    names = ["__esModule", "a", "default", "hidden", "module.exports", "throws"]
    assert call(modular, code % "") == [names, 3, "object"]
    assert call(modular, code % "/f") == [["default", "module.exports", "more"], None, "function"]
    assert call(modular, code % "/class") == [["default", "made", "module.exports"], None, "function"]
    assert call(modular, code % "/text") == [["default", "module.exports"], None, "string"]
    assert call(modular, code % "/null") == [["default", "module.exports"], None, "object"]


def test_an_es_module_of_which_package_json_says_nothing(modular: Runtime, store: Path) -> None:
    npm(store, "untold", "1.0.0", {"index.js": "import fs from 'fs'; export default typeof fs.readFileSync"})
    assert call(modular, "return cb => cb(null, require('untold').default)") == "function"
    assert call(modular, "import m from 'untold';\nexport default cb => cb(null, m)") == "function"


def test_a_package_that_fails_is_loaded_anew_by_the_next_call(modular: Runtime, store: Path) -> None:
    npm(
        store,
        "fails",
        "1.0.0",
        {
            "index.js": "\nglobalThis.times = (globalThis.times ?? 0) + 1;\nif (times < 2) throw new Error('no');\nexports.times = times"
        },
    )
    code = "\nconst m = require('fails'); return cb => cb(null, m.times)"
    body = modular.call(code).json
    assert (body["message"], body["line"]) == ("Compilation failed: no (line 2, column 11)", 2)
    assert "fails/index.js:3:" in body["stack"]
    assert "/node/main.js" not in body["stack"]
    assert modular.call(code).json == 2


def test_a_package_that_does_not_compile(modular: Runtime, store: Path) -> None:
    npm(store, "broken", "1.0.0", {"index.js": "exports.a = ;", "data.json": "{"})
    body = modular.call("return cb => cb(null, require('broken'))").json
    assert (body["reason"], body["name"]) == ("sync_exception", "SyntaxError")
    assert "index.js:1" in body["stack"]
    assert "broken/data.json: " in modular.call("return cb => cb(null, require('broken/data.json'))").json["message"]


def test_programs_share_the_compiled_text_and_not_the_cache(modular: Runtime, store: Path) -> None:
    npm(
        store,
        "large",
        "1.0.0",
        {"index.js": f"/* an important remark */ exports.f = () => {{ return '{'x' * MiB}' }};"},
    )
    code = "// %d\nconst m = require('large'); return cb => cb(null, m.f().length)"
    assert call(modular, code % 0) == MiB
    before = modular.memory()
    for n in range(1, 41):
        assert call(modular, code % n) == MiB
    # Forty texts of 1 MiB would be forty.
    assert modular.memory() - before < 12 * MiB


def test_packages_count_towards_the_bytes_that_stay_loaded(start_runtime: StartRuntime, store: Path) -> None:
    runtime = start_runtime({"SANDPOST_MODULES": str(store), "SANDPOST_PROGRAM_BYTES": str(MiB)})
    npm(store, "large", "1.0.0", {"index.js": f"exports.f = '{'x' * (800 << 10)}'"})
    codes = [f"// {n}\nconst m = require('large'); return cb => cb(null, 1)" for n in range(5)]
    for code in codes:
        assert call(runtime, code) == 1
    known = [
        runtime.request("GET", "/", {"x-sandpost-op": "call", "x-sandpost-code": code_hash(code)}).status
        for code in codes
    ]
    # The first counts whole, the others a quarter of what they share with it, each once it has run.
    assert known == [404, 200, 200, 200, 200]


def test_an_unloaded_program_leaves_nothing_of_its_packages(start_runtime: StartRuntime, store: Path) -> None:
    runtime = start_runtime({"SANDPOST_MODULES": str(store), "SANDPOST_PROGRAMS": "2"})
    npm(store, "heavy", "1.0.0", {"index.js": "exports.all = Array.from({ length: 1 << 19 }, (_, n) => n + 0.5)"})
    npm(
        store,
        "heavy-esm",
        "1.0.0",
        {"index.mjs": "export const all = Array.from({ length: 1 << 19 }, (_, n) => n + 0.5)"},
        main="index.mjs",
    )
    codes = (
        "// %d\nconst { all } = require('heavy'); return cb => cb(null, all.length)",
        "// %d\nimport { all } from 'heavy-esm';\nexport default cb => cb(null, all.length)",
        "// %d\nreturn async (cb) => (await import('heavy')).all.length",
    )
    for n in range(6):
        assert call(runtime, codes[n % 3] % n) == 1 << 19
    before = runtime.memory()
    for n in range(6, 66):
        assert call(runtime, codes[n % 3] % n) == 1 << 19
    # Each is 4 MiB.
    assert runtime.memory() - before < 40 * MiB


def test_a_module_in_machine_code(modular: Runtime, store: Path) -> None:
    folder = npm(store, "native", "1.0.0", {"index.js": "module.exports = require('./build/Release/said.node')"})
    addon(folder / "node_modules" / "native" / "build" / "Release" / "said.node", "from C")
    # Each program gets it, though a process loads it once.
    for n in range(2):
        assert call(modular, f"// {n}\nconst m = require('native'); return cb => cb(null, m)") == "from C"


def test_the_text_of_a_package_goes_with_the_last_program_that_uses_it(
    start_runtime: StartRuntime, store: Path
) -> None:
    runtime = start_runtime({"SANDPOST_MODULES": str(store), "SANDPOST_PROGRAMS": "2"})
    for n in range(64):
        npm(store, "text", f"1.0.{n}", {"index.js": f"exports.f = () => {{ return '{n}{'x' * MiB}' }};"})
        assert call(runtime, f"const m = require('text@1.0.{n}'); return cb => cb(null, typeof m.f)") == "function"
        if n == 8:
            before = runtime.memory()
    # All of them would be 55 MiB.
    assert runtime.memory() - before < 24 * MiB


def test_what_a_program_does_to_built_ins_does_not_keep_others_from_their_packages(modular: Runtime) -> None:
    breaks = """
    return cb => { const broken = () => { throw new Error('broken') };
      for (const name of ['get', 'set', 'delete', 'forEach']) Map.prototype[name] = broken;
      for (const name of ['startsWith', 'endsWith', 'lastIndexOf']) String.prototype[name] = broken;
      JSON.parse = Reflect.apply = Object.keys = Object.hasOwn = broken;
      cb(null, 'done') }"""
    assert call(modular, breaks) == "done"
    assert call(modular, REQUIRED % "counter") == "4.17.21"
    assert call(modular, REQUIRED % "counter@4.9.0/index") == "4.9.0"

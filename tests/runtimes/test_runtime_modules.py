"""Programs that are ES modules: what they import, when they run, and what is left of them."""

import pytest

from support.runtime import Runtime, StartRuntime

MiB = 1 << 20


def test_what_a_module_imports(runtime: Runtime) -> None:
    code = """
    import fs, { readFileSync as read } from 'node:fs';
    import * as path from 'path';
    import EventEmitter, { once } from 'events';
    import { default as os } from 'node:os';
    export const other = 1;
    export { path };
    export default async (context, cb) => [
      read === fs.readFileSync, path.join('a', 'b'), path.default.join === path.join, typeof once, typeof new EventEmitter().on,
      typeof os.cpus, (await import('node:fs')).default === fs, typeof require, typeof module, this === undefined ]"""
    seen = [True, "a/b", True, "function", "function", "function", True, "undefined", "undefined", True]
    assert runtime.call(code).json == seen


def test_what_a_module_knows_of_itself(runtime: Runtime) -> None:
    code = """
    import { createRequire } from 'node:module';
    const require = createRequire(import.meta.url);
    export default cb => cb(null, [import.meta, import.meta.resolve('fs'), require('node:path').join('a', 'b')])"""
    meta = {"dirname": "/", "filename": "/webtask.js", "main": False, "url": "file:///webtask.js"}
    assert runtime.call(code).json == [meta, "fs", "a/b"]


NO_FILES = (
    "a program has no files beside it: it can use the modules built into Node, and those of npm that are installed"
)
NO_URLS = "it is not built into Node, and there are no modules by URL"
NOT_FOUND = {
    "express": "it is not installed: `sandpost module add npm:express@VERSION`",
    "./x.js": NO_FILES,
    "/etc/passwd": NO_FILES,
    "../main.js": NO_FILES,
    "file:///etc/passwd": NO_URLS,
    "node:nothing": NO_URLS,
    "": "it has no name",
}


@pytest.mark.parametrize("name", NOT_FOUND)
def test_what_is_not_built_into_node_is_not_imported(runtime: Runtime, name: str) -> None:
    message = f"Cannot find module '{name}': {NOT_FOUND[name]}"
    body = runtime.call(f"import fs from 'fs';\n  import x from '{name}';\nexport default cb => cb()").json
    assert (body["reason"], body["line"], body["column"]) == ("compilation_failed", 2, 10)
    assert body["message"] == f"Compilation failed: {message} (line 2, column 10)"
    code = f"export default async cb => {{ try {{ await import('{name}') }} catch (e) {{ cb(null, [e.code, e.message]) }} }}"
    assert runtime.call(code).json == ["MODULE_NOT_FOUND", message]


def test_a_name_that_a_module_does_not_export(runtime: Runtime) -> None:
    body = runtime.call("import path from 'path';\nimport { nope } from 'node:fs';\nexport default cb => cb()").json
    assert body["message"] == (
        "Compilation failed: The requested module 'node:fs' does not provide an export named 'nope' (line 2, column 10)"
    )


def test_import_attributes_are_refused(runtime: Runtime) -> None:
    body = runtime.call("import fs from 'fs' with { type: 'json' };\nexport default cb => cb()").json
    assert body["reason"] == "compilation_failed"
    assert "'fs' is imported with attributes" in body["message"]


@pytest.mark.parametrize(
    "code", ["export const f = cb => cb(null, 1)", "export default { f(cb) {} }", "export {}", "await null"]
)
def test_a_module_exports_its_function_as_the_default(runtime: Runtime, code: str) -> None:
    assert runtime.call(code).json["reason"] == "no_function"


def test_a_module_is_strict_and_a_function_body_is_not(runtime: Runtime) -> None:
    assert runtime.call("export default function (cb) { cb(null, typeof this) }").body == b'"undefined"'
    assert runtime.call("module.exports = function (cb) { cb(null, typeof this) }").body == b'"object"'


def test_load_runs_nothing_of_a_module_and_its_first_call_runs_it_once(runtime: Runtime) -> None:
    code = "globalThis.ran = (globalThis.ran || 0) + 1; await 1; export default cb => cb(null, globalThis.ran)"
    assert runtime.load(code).status == 204
    assert runtime.call("return cb => cb(null, globalThis.ran || 'never')").body == b'"never"'
    assert [runtime.call(code).body for _ in range(3)] == [b"1", b"1", b"1"]


def test_calls_that_come_meanwhile_wait_for_the_one_start(runtime: Runtime) -> None:
    code = """
    globalThis.starts = (globalThis.starts || 0) + 1;
    await new Promise(go => { globalThis.go = go });
    export default (context, cb) => cb(null, [context.id, globalThis.starts])"""
    calls = [runtime.begin(code, req_id=f"r{n}") for n in range(5)]
    assert runtime.call("return cb => { const seen = typeof go; go(); cb(null, seen); }").body == b'"function"'
    assert [call.answer().json for call in calls] == [[f"r{n}", 1] for n in range(5)]
    assert runtime.call(code, req_id="later").json == ["later", 1]
    for call in calls:
        call.sock.close()


def test_a_top_level_that_fails_is_tried_again_by_the_next_call(runtime: Runtime) -> None:
    code = """globalThis.tries = (globalThis.tries || 0) + 1;
    await null;
    if (globalThis.tries < 3) throw new Error(`try ${globalThis.tries}`);
    export default cb => cb(null, globalThis.tries)"""
    for n in (1, 2):
        body = runtime.call(code).json
        assert (body["reason"], body["line"]) == ("compilation_failed", 3)
        assert body["message"].startswith(f"Compilation failed: try {n} (")
    assert [runtime.call(code).body for _ in range(2)] == [b"3", b"3"]


def test_a_start_that_nobody_waits_for_any_more_is_given_up(runtime: Runtime) -> None:
    code = """globalThis.begun = (globalThis.begun || 0) + 1;
    if (globalThis.begun === 1) await new Promise(() => {});
    export default cb => cb(null, globalThis.begun)"""
    with runtime.begin(code):
        assert (
            runtime.call(
                "return cb => { const t = setInterval(() => { if (globalThis.begun) { clearInterval(t); cb() } }, 1) }"
            ).status
            == 200
        )
    assert runtime.call("return cb => setTimeout(cb, 50)").status == 200
    assert runtime.call(code).body == b"2"


def test_what_goes_wrong_while_a_module_starts_is_the_calls_that_started_it(runtime: Runtime) -> None:
    code = """console.log('starts');
    setTimeout(() => { throw new Error('beside') }, 100);
    await new Promise(go => setTimeout(go, 200));
    export default cb => cb(null, 'started')"""
    with runtime.begin(code, req_id="first") as first, runtime.begin(code, req_id="second") as second:
        body = first.answer().json
        assert (body["reason"], body["message"], body["req_id"]) == ("async_exception", "beside", "first")
        assert second.answer().body == b'"started"'
    records = runtime.records(lambda found: len(found) >= 2)
    assert [(record.level, record.req_id) for record in records] == [(30, "first"), (50, "first")]


def test_a_request_program_waits_for_its_start_with_its_body(runtime: Runtime) -> None:
    code = """await new Promise(go => setTimeout(go, 30));
    export default async (context, req, res) => { let text = ''; for await (const chunk of req) text += chunk; res.end(text) }"""
    assert runtime.call(code, "POST", body=b"x" * 100_000).body == b"x" * 100_000


def test_two_modules_share_nothing_of_theirs(runtime: Runtime) -> None:
    one = "let n = 0; export default cb => cb(null, ++n) // one"
    two = "let n = 10; export default cb => cb(null, ++n) // two"
    assert [runtime.call(code).json for code in (one, two, one, two)] == [1, 11, 2, 12]


def test_modules_that_are_unloaded_leave_nothing(start_runtime: StartRuntime) -> None:
    runtime = start_runtime({"SANDPOST_PROGRAMS": "8"})

    def run(n: int) -> None:
        filler = "x" * 50_000
        code = f"import 'fs'; const t = '{filler}{n}'.repeat(2); export default async cb => {{ await import('os'); cb(null, t.length) }}"
        assert runtime.call(code).status == 200

    for n in range(100):
        run(n)
    before = runtime.memory()
    for n in range(100, 500):
        run(n)
    # Kept, they were 400 times 50 KiB of source alone.
    assert runtime.memory() - before < 20 * MiB


def test_nodes_experiments_are_no_news_to_a_tenant(runtime: Runtime) -> None:
    runtime.call("import 'fs'; export default cb => cb()")
    runtime.call("return (cb: any) => cb()", kind="application/typescript")
    assert runtime.call("return cb => setTimeout(cb, 20)").status == 200
    assert (runtime.read_frames(), runtime.output.read_bytes()) == (b"", b"")


def test_a_program_can_still_warn(runtime: Runtime) -> None:
    runtime.call("import 'fs'; export default cb => { process.emitWarning('mine'); setTimeout(cb, 20) }")
    assert "Warning: mine" in runtime.records()[0].text


def test_a_sealed_global_object_keeps_no_module_from_its_answer(runtime: Runtime) -> None:
    assert runtime.call("return cb => { Object.preventExtensions(globalThis); cb() }").status == 200
    body = runtime.load("export default 1;\n foo bar").json
    assert body["reason"] == "compilation_failed"
    assert body["name"] == "SyntaxError"


def test_broken_builtins_keep_no_module_from_its_answer(runtime: Runtime) -> None:
    broken = """return cb => {
      Promise.prototype.then = Map.prototype.get = Map.prototype.set = Object.keys = () => { throw new Error('broken') };
      cb() }"""
    assert runtime.call(broken).status == 200
    code = "import { join } from 'path'; await null; export default cb => cb(null, join('a', 'b'))"
    assert runtime.call(code).body == b'"a/b"'

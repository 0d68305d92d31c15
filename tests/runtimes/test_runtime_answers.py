"""One test a row of "Answers of a run" whose cause lies inside the sandbox."""

import json

import pytest

from support.runtime import Runtime


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ('return function (cb) { cb(null, "Hello, world!"); }', b'"Hello, world!"'),
        ("return function (context, cb) { cb(null, { a: [1, null] }); }", b'{"a":[1,null]}'),
        ("module.exports = function (cb) { cb(null, true); };", b"true"),
        ("module.exports = (context, cb) => setTimeout(cb, 1, null, 7);", b"7"),
        ("return async function (cb) { return [1]; }", b"[1]"),
        ("return async (context, cb) => { await null; return context.data.x; }", b'"y"'),
        ("return function (cb) { return Promise.resolve('p'); }", b'"p"'),
        ("return function (cb) { return { then(ok) { ok('thenable'); } }; }", b'"thenable"'),
        ("return cb => cb(null, '\\u00fc\\u{1F600}')", '"\u00fc\U0001f600"'.encode()),
    ],
)
def test_a_result_is_bare_json(runtime: Runtime, code: str, body: bytes) -> None:
    answer = runtime.call(code, target="/acme?x=y")
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-sandpost-source"] == "webtask"
    assert answer.headers["x-sandpost-wire"] == "1"
    assert "x-sandpost-error" not in answer.headers


@pytest.mark.parametrize("value", ["", "null", "undefined", "0", "''", "false", "NaN", "0n"])
def test_a_falsy_result_is_an_empty_object(runtime: Runtime, value: str) -> None:
    assert runtime.call(f"return cb => cb(null, {value})").body == b"{}"


def test_a_falsy_error_is_none(runtime: Runtime) -> None:
    assert runtime.call("return cb => cb(0, 'fine')").body == b'"fine"'


def test_an_error_object_given_to_the_callback(runtime: Runtime) -> None:
    answer = runtime.call("return function (cb) {\n  cb(new TypeError('not so'));\n}")
    body = answer.failure(400, "script_error")
    assert body["error"] == "Script returned an error."
    assert body["details"] == "TypeError: not so"
    assert body["name"] == "TypeError"
    assert body["message"] == "not so"
    assert body["stack"] == "TypeError: not so\n    at webtask.js:2:6"
    assert body["req_id"] == "req-1"
    assert runtime.only_error().text == "Script returned an error.\nTypeError: not so\n    at webtask.js:2:6"


@pytest.mark.parametrize(
    ("status", "seen"),
    [
        ("404", 404), ("599", 599), ("400", 400), ("200", 400), ("399", 400), ("600", 400),
        ("'404'", 400), ("404.5", 400), ("NaN", 400), ("{}", 400), ("-1", 400), ("undefined", 400),
    ],
)  # fmt: skip
def test_an_error_chooses_a_status_from_400_to_599(runtime: Runtime, status: str, seen: int) -> None:
    runtime.call(f"return cb => cb(Object.assign(new Error('e'), {{ statusCode: {status} }}))").failure(
        seen,
        "script_error",
    )


def test_an_error_that_is_a_string_has_details_only(runtime: Runtime) -> None:
    body = runtime.call("return cb => cb('no')").failure(400, "script_error")
    assert set(body) == {"code", "reason", "req_id", "error", "details"}
    assert body["details"] == "no"


def test_an_error_that_is_a_plain_object_is_carried_in_details(runtime: Runtime) -> None:
    answer = runtime.call("return cb => cb({ statusCode: 409, message: 'taken', conflict: { etag: 3 } })")
    body = answer.failure(409, "script_error")
    assert body["details"] == {"statusCode": 409, "message": "taken", "conflict": {"etag": 3}}
    assert body["message"] == "taken"


def test_a_rejected_promise_is_as_an_error_of_the_callback(runtime: Runtime) -> None:
    answer = runtime.call("return async cb => { throw Object.assign(new Error('r'), { statusCode: 418 }); }")
    body = answer.failure(418, "script_error")
    assert body["error"] == "Script returned an error."
    assert body["message"] == "r"
    runtime.only_error()


def test_a_rejected_promise_of_a_request_program(runtime: Runtime) -> None:
    answer = runtime.call("return async (context, req, res) => { res.setHeader('x-half', '1'); throw new Error('r'); }")
    assert answer.failure(400, "script_error")["message"] == "r"
    assert "x-half" not in answer.headers


def test_thrown_at_once(runtime: Runtime) -> None:
    answer = runtime.call("return function (cb) {\n\n   null.x;\n}")
    body = answer.failure(500, "sync_exception")
    assert body["error"] == "Script generated an unhandled synchronous exception."
    assert body["name"] == "TypeError"
    assert body["message"] == "Cannot read properties of null (reading 'x')"
    assert str(body["stack"]).endswith("\n    at webtask.js:3:9")
    assert runtime.only_error().text.startswith("Script generated an unhandled synchronous exception.\nTypeError: ")


@pytest.mark.parametrize(
    "later",
    ["setTimeout(fail, 1)", "setImmediate(fail)", "process.nextTick(fail)", "queueMicrotask(fail)",
     "require('fs').stat('/', fail)", "new Promise(fail)", "Promise.resolve().then(fail)"],
)  # fmt: skip
def test_thrown_later(runtime: Runtime, later: str) -> None:
    answer = runtime.call(f"return function (cb) {{ const fail = () => {{ throw new Error('late'); }}; {later}; }}")
    body = answer.failure(500, "async_exception")
    assert body["error"] == "Script generated an unhandled asynchronous exception."
    assert body["message"] == "late"
    runtime.only_error()
    assert runtime.probe().status == 204


@pytest.mark.parametrize(
    ("code", "line", "column", "message"),
    [
        ("return function (cb) {", 1, 23, "Unexpected end of input"),
        (" foo bar", 1, 6, "Unexpected identifier 'bar'"),
        ("\tfoo bar", 1, 6, "Unexpected identifier 'bar'"),
        ("// \u00fc\nlet \u00e4 = 1; let \u00e4 = 2", 2, 16, "Identifier '\u00e4' has already been declared"),
        ("return cb => {\n\n  cb(null, 'x'\n}", 3, 12, "missing ) after argument list"),
        ("\ufeff foo bar", 1, 6, "Unexpected identifier 'bar'"),
        ("return cb => {\n  cb(\n", 3, 1, "Unexpected end of input"),
        ("return cb => cb(null, '\u00e4'", 1, 23, "missing ) after argument list"),
        ("export default 1; return 1", 1, 19, "Illegal return statement"),
        ("export default function (cb) {\n  cb(null, 1\n}", 2, 12, "missing ) after argument list"),
        ("import a from 'fs';\n\nexport { b };", 3, 10, "Export 'b' is not defined in module"),
    ],
)
def test_does_not_compile(runtime: Runtime, code: str, line: int, column: int, message: str) -> None:
    answer = runtime.load(code)
    body = answer.failure(400, "compilation_failed", "compiler")
    assert body["message"] == f"Compilation failed: {message} (line {line}, column {column})"
    assert (body["line"], body["column"]) == (line, column)
    assert body["name"] == "SyntaxError"
    assert body["req_id"] == "load-1"
    assert "    at " not in str(body["stack"])
    assert runtime.only_error("load-1").text.startswith(f"{body['error']}\nwebtask.js:{line}\n")


def test_a_column_beyond_what_the_compiler_shows_is_left_out(runtime: Runtime) -> None:
    body = runtime.load("x" * 3000 + " = = 1").failure(400, "compilation_failed", "compiler")
    assert body["message"] == "Compilation failed: Unexpected token '=' (line 1)"
    assert "column" not in body


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (f"let {'A' * 140_000}; let {'A' * 140_000}; return cb => cb(null, 1)", "Identifier 'AAAA"),
        # Each character of it is six bytes of JSON.
        ("return /(" + "\x01" * 300_000 + "/", "Invalid regular expression: /(\x01"),
    ],
)
def test_what_the_compiler_says_is_cut(runtime: Runtime, code: str, message: str) -> None:
    answer = runtime.load(code)
    assert len(answer.body) < 512 * 1024
    body = answer.failure(400, "compilation_failed", "compiler")
    assert str(body["message"]).startswith(f"Compilation failed: {message}")
    assert " characters cut]" in str(body["message"])


def test_the_texts_of_an_error_are_cut(runtime: Runtime) -> None:
    answer = runtime.call("const e = new Error('m'.repeat(20000)); e.name = 'n'.repeat(16384); return cb => cb(e)")
    body = answer.failure(400, "script_error")
    assert body["message"] == "m" * 16384 + " [3616 characters cut]"
    assert body["name"] == "n" * 16384
    assert str(body["details"]).endswith(" characters cut]")


@pytest.mark.parametrize("length", [16384, 16385])
def test_an_error_that_is_a_large_plain_object_is_cut_text_in_details(runtime: Runtime, length: int) -> None:
    text = '{"a":"' + "x" * (length - len('{"a":""}')) + '"}'
    answer = runtime.call(f"return cb => cb(JSON.parse('{text}'))")
    details = answer.failure(400, "script_error")["details"]
    assert details == (json.loads(text) if length == 16384 else text[:16384] + " [1 characters cut]")


@pytest.mark.parametrize("program", ["return cb => cb(e)", "return cb => { throw e; }", "throw e;"])
def test_no_plain_object_makes_a_failure_large(runtime: Runtime, program: str) -> None:
    # Each of its characters is six of JSON, and seven of JSON in JSON.
    answer = runtime.call("const e = { message: 'no', all: '\\x01'.repeat(1_000_000) }; " + program)
    assert answer.status in {400, 500}
    assert len(answer.body) < 512 * 1024
    assert str(answer.json["details"]).endswith(" characters cut]")


def test_fails_at_load(runtime: Runtime) -> None:
    code = "let a;\nfunction boom() {\n  throw new RangeError('top');\n}\n  boom();\nreturn cb => cb();"
    for _ in range(2):
        body = runtime.call(code).failure(400, "compilation_failed", "compiler")
        assert body["message"] == "Compilation failed: top (line 3, column 9)"
        assert (body["line"], body["column"]) == (3, 9)
        assert (
            body["stack"] == "RangeError: top\n    at boom (webtask.js:3:9)\n    at Object.<anonymous> (webtask.js:5:3)"
        )


def test_a_missing_module_fails_at_load(runtime: Runtime) -> None:
    body = runtime.call("\nrequire('express');").failure(400, "compilation_failed", "compiler")
    assert body["message"] == (
        "Compilation failed: Cannot find module 'express': it is not installed: `sandpost module add npm:express@VERSION` "
        "(line 2, column 1)"
    )


@pytest.mark.parametrize("code", ["", "return 1", "return null", "module.exports = {}", "module.exports = 'f'", "// f"])
def test_no_function(runtime: Runtime, code: str) -> None:
    body = runtime.call(code).failure(400, "no_function", "compiler")
    assert body["message"] == "Invalid webtask code"
    assert body["error"] == "Supplied code must return or export a function."
    runtime.only_error()


@pytest.mark.parametrize(
    "code", ["return () => 1", "return (a, b, c, d) => 1", "return (...all) => 1", "return async () => 1"]
)
def test_wrong_number_of_parameters(runtime: Runtime, code: str) -> None:
    body = runtime.call(code).failure(400, "wrong_signature", "compiler")
    for signature in ("function (cb)", "function (context, cb)", "function (context, req, res)"):
        assert signature in str(body["error"])
    runtime.only_error()


@pytest.mark.parametrize(
    "value",
    [
        "(() => { const a = {}; a.a = a; return a; })()", "1n", "{ a: 1n }", "() => 1", "Symbol('s')",
        "{ toJSON() { throw new Error('j'); } }", "{ toJSON() { return undefined; } }",
        "{ get a() { throw null; } }", "new Proxy({}, { ownKeys() { throw 1; } })",
        "(() => { let a = []; for (let i = 0; i < 100000; i++) a = [a]; return a; })()",
    ],
)  # fmt: skip
def test_a_value_that_is_not_serialisable(runtime: Runtime, value: str) -> None:
    answer = runtime.call(f"return cb => cb(null, {value})")
    body = answer.failure(400, "not_serializable")
    assert body["error"] == "Error when JSON serializing the result of the JavaScript code."
    runtime.only_error()
    assert runtime.call("return cb => cb(null, 1)").body == b"1"


@pytest.mark.parametrize(
    ("ending", "word", "status"),
    [
        ("process.exit(3)", "exit", 3),
        ("process.exit()", "exit", 0),
        ("process.on('exit', () => { throw 1; }); process.exit(0)", "exit", 1),
        ("process.reallyExit(4)", "exit", 4),
        ("process.abort()", "crash", -6),
        ("process.kill(process.pid, 'SIGKILL')", "crash", -9),
        ("process.kill(process.pid, 15)", "crash", -15),
        ("process.kill(process.pid)", "crash", -15),
    ],
)
def test_the_call_that_ends_the_process_is_named(runtime: Runtime, ending: str, word: str, status: int) -> None:
    with runtime.begin("return cb => setTimeout(cb, 60000)", req_id="neighbour") as neighbour:
        answer = runtime.call(f"return cb => setTimeout(() => {{ {ending}; }}, 1)", req_id="guilty")
        body = answer.failure(500, word)
        assert body["req_id"] == "guilty"
        assert answer.headers["x-sandpost-end"] == word
        assert "ended the process" in str(body["message"])
        assert runtime.process.wait(10) == status
        assert neighbour.sock.recv(1) == b""
    assert runtime.only_error("guilty").text == body["message"]


def test_an_exit_after_the_answer_blames_no_call(runtime: Runtime) -> None:
    code = "return cb => { cb(null, 'done'); setTimeout(() => process.exit(5), 20); }"
    with runtime.begin("return cb => setTimeout(cb, 60000)") as neighbour:
        assert runtime.call(code).body == b'"done"'
        assert runtime.process.wait(10) == 5
        assert neighbour.sock.recv(1) == b""


def test_a_signal_that_asks_is_no_end(runtime: Runtime) -> None:
    assert runtime.call("return cb => { process.kill(process.pid, 0); cb(null, 'alive'); }").body == b'"alive"'

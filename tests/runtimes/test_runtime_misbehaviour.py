"""Programs that misbehave and leave the runtime's own objects alone: one answer each, and the neighbours are served."""

import contextlib
import json
import time

import pytest

from support.runtime import Record, Runtime

OK = "return cb => cb(null, 'ok')"


def assert_serves(runtime: Runtime) -> None:
    assert runtime.call(OK, req_id="neighbour").body == b'"ok"'


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        ("cb(null, 1); cb(null, 2)", 1),
        ("cb(null, 1); cb(new Error('no'))", 1),
        ("cb(null, 1); setTimeout(cb, 1, null, 2)", 1),
        ("cb(null, 1); throw new Error('after')", 1),
        ("cb(null, 1); return Promise.reject(new Error('after'))", 1),
        ("cb(null, 1); setTimeout(() => { throw new Error('after'); }, 1)", 1),
        ("cb(null, { toJSON() { cb(null, 'inner'); return 'outer'; } })", "outer"),
        ("cb(null, { get a() { cb(new Error()); return 1; } })", {"a": 1}),
        ("setTimeout(() => { cb(null, 1); cb(null, 2); }, 1)", 1),
        ("return { then(ok, no) { ok(1); ok(2); no(3); } }", 1),
    ],
)
def test_a_call_is_answered_once(runtime: Runtime, body: str, answer: object) -> None:
    with runtime.begin(f"return function (cb) {{ {body}; }}") as connection:
        assert connection.answer().json == answer
        runtime.call("return cb => setTimeout(cb, 20)")
        connection.assert_one_answer()
    assert_serves(runtime)


def test_a_callback_that_comes_twice_is_a_warning(runtime: Runtime) -> None:
    runtime.call("return cb => { cb(null, 1); cb(null, 2); }")
    (record,) = runtime.records()
    assert (record.level, record.req_id) == (40, "req-1")
    assert "callback" in record.text


@pytest.mark.parametrize("value", ["new Error('late')", "'late'"])
def test_an_error_that_nobody_gets_any_more_is_a_record(runtime: Runtime, value: str) -> None:
    runtime.call(f"return cb => {{ cb(null, 1); cb({value}); }}", req_id="twice")
    (record,) = runtime.records()
    assert (record.level, record.req_id) == (50, "twice")
    assert "late" in record.text


def test_an_error_after_its_client_has_gone_is_a_record(runtime: Runtime) -> None:
    with runtime.begin("return cb => setTimeout(cb, 100, new Error('for nobody'))"):
        pass
    (record,) = runtime.records()
    assert (record.level, record.req_id) == (50, "req-1")
    assert "Error: for nobody" in record.text


def test_a_throw_after_the_answer_is_a_record(runtime: Runtime) -> None:
    runtime.call("return cb => { cb(null, 1); setTimeout(() => { throw new Error('after'); }, 1); }", req_id="late")
    (record,) = runtime.records()
    assert (record.level, record.req_id) == (50, "late")
    assert "Error: after" in record.text


def test_a_callback_after_a_throw_is_ignored(runtime: Runtime) -> None:
    with runtime.begin("return cb => { setTimeout(cb, 1, null, 'late'); throw new Error('first'); }") as connection:
        assert connection.answer().json["message"] == "first"
        runtime.call("return cb => setTimeout(cb, 20)")
        connection.assert_one_answer()


@pytest.mark.parametrize(
    ("thrown", "details"),
    [
        ("null", "null"), ("undefined", "undefined"), ("0", "0"), ("''", ""), ("Symbol('s')", "Symbol(s)"), ("1n", "1"),
        ("'text'", "text"), ("[1]", [1]), ("{}", {}), ("() => 1", "() => 1"), ("NaN", "NaN"),
        ("Object.create(null)", {}),
        ("{ get message() { throw 1; }, get stack() { throw 2; }, get name() { throw 3; }, get statusCode() { throw 4; } }",
         "[object Object]"),
        ("{ toString() { throw 1; }, toJSON() { throw 1; } }", "[a value that cannot be shown]"),
        ("new Proxy({}, { get() { throw new Error('trap'); }, getPrototypeOf() { throw 1; }, ownKeys() { throw 1; } })",
         "[a value that cannot be shown]"),
        ("new Proxy(function () {}, { get() { throw new Error('trap'); } })", "[a value that cannot be shown]"),
        ("(() => { const a = { message: 'm' }; a.a = a; return a; })()", "[object Object]"),
        ("Object.assign(new Error('m'), { toString: null, stack: 5, name: {} })", "[a value that cannot be shown]"),
        ("Object.defineProperty(new Error('m'), 'stack', { get() { throw 1; } })", "Error: m"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("how", "status"),
    [("throw value;", 500), ("setTimeout(() => { throw value; }, 1)", 500), ("return Promise.reject(value)", 400)],
)
def test_whatever_is_thrown_is_told(runtime: Runtime, how: str, status: int, thrown: str, details: object) -> None:
    answer = runtime.call(f"return function (cb) {{ const value = {thrown}; {how} }}")
    assert (answer.status, answer.json["details"]) == (status, details)
    assert runtime.records()[0].level == 50
    assert_serves(runtime)


def test_a_callback_error_of_traps(runtime: Runtime) -> None:
    code = """return cb => cb(new Proxy(new Error('m'), { get(t, key) {
        if (key === 'statusCode') { cb(null, 'again'); return 477; }
        if (key === 'message') throw new Error('trap');
        return t[key]; } }))"""
    answer = runtime.call(code)
    assert (answer.status, answer.json["reason"]) == (477, "script_error")
    assert_serves(runtime)


def test_an_error_with_a_long_stack_is_cut(runtime: Runtime) -> None:
    code = "return cb => { const e = new Error('m'); e.stack = 'at x\\n'.repeat(1e6); cb(e); }"
    assert len(runtime.call(code).json["stack"]) == 32_768
    assert len(runtime.records()[0].text) <= 65_536


@pytest.mark.parametrize("depth_of", ["cb(null, 'deep')", "cb(new Error('deep'))"])
def test_a_callback_at_the_edge_of_the_stack_is_answered(runtime: Runtime, depth_of: str) -> None:
    # The deepest calls of `cb` overflow within the runtime; whatever it had begun must be finished afterwards.
    code = f"""return cb => {{
        const down = () => {{ try {{ down(); }} catch {{ {depth_of}; }} }};
        try {{ down(); }} catch {{}} }}"""
    for _ in range(20):
        assert b"deep" in runtime.call(code).body
    assert_serves(runtime)


def test_a_late_callback_at_the_edge_of_the_stack_is_answered(runtime: Runtime) -> None:
    code = """return cb => setTimeout(() => {
        const down = () => { try { down(); } catch { cb(null, 'deep'); } };
        try { down(); } catch {} }, 1)"""
    with runtime.begin(code) as connection:
        for _ in range(3):
            runtime.probe()
        assert connection.answer().body == b'"deep"'
    assert_serves(runtime)


def test_a_promise_that_traps_is_a_failure_of_its_call(runtime: Runtime) -> None:
    code = "return cb => ({ get then() { throw new Error('no then'); } })"
    assert runtime.call(code).json["message"] == "no then"
    code = "return cb => ({ then() { throw new Error('then threw'); } })"
    assert runtime.call(code).json["message"] == "then threw"
    assert_serves(runtime)


def test_functions_that_lie_about_themselves(runtime: Runtime) -> None:
    for code in (
        "return new Proxy(cb => 1, { get(t, k) { if (k === 'length') throw new Error('length'); return t[k]; } })",
        "return Object.defineProperty(cb => 1, 'length', { get() { throw new Error('length'); } })",
    ):
        assert runtime.call(code).json["reason"] == "compilation_failed"
    for length in ("'2'", "1.5", "-1", "NaN", "null"):
        code = f"return Object.defineProperty(cb => cb(null, 1), 'length', {{ value: {length} }})"
        assert runtime.call(code).json["reason"] == "wrong_signature"
    assert runtime.call("return class A { constructor(cb) { cb(null, 1); } }").json["reason"] == "sync_exception"
    assert_serves(runtime)


def test_exports_that_trap(runtime: Runtime) -> None:
    code = "Object.defineProperty(module, 'exports', { get() { throw new Error('exports'); } })"
    assert runtime.call(code).json["message"].startswith("Compilation failed: exports")
    assert_serves(runtime)


def test_listeners_that_programs_remove_come_back(runtime: Runtime) -> None:
    runtime.call("process.removeAllListeners(); process.removeAllListeners('uncaughtException'); return cb => cb()")
    code = "return cb => setTimeout(() => { throw new Error('still told'); }, 1)"
    assert runtime.call(code).json["message"] == "still told"
    assert_serves(runtime)


def test_programs_may_listen_to_uncaught_exceptions_too(runtime: Runtime) -> None:
    code = "process.once('uncaughtException', e => console.log('mine', e.message)); return cb => setTimeout(() => { throw new Error('x'); }, 1)"
    assert runtime.call(code).status == 500
    texts = [record.text for record in runtime.records(lambda found: len(found) == 2)]
    assert "mine x" in texts


def test_a_failure_is_charged_to_its_own_call(runtime: Runtime) -> None:
    slow = "return (c, cb) => setTimeout(cb, 100, null, c.id)"
    bad = "return (c, cb) => setTimeout(() => { null.x; }, 20)"
    with (
        runtime.begin(slow, req_id="a") as a,
        runtime.begin(bad, req_id="b") as b,
        runtime.begin(slow, req_id="c") as c,
    ):
        assert b.answer().json["req_id"] == "b"
        assert (a.answer().json, c.answer().json) == ("a", "c")
    assert [record.req_id for record in runtime.records()] == ["b"]


def test_a_failure_that_belongs_to_nobody_is_logged(runtime: Runtime) -> None:
    """An emitter of the first call throws in the second's context: that one is charged, and no other."""
    with runtime.begin("globalThis.fns = []; return cb => fns.push(cb)", req_id="first") as first:
        runtime.call(OK)
        code = "return cb => { setTimeout(() => { fns[0](null, 'from another call'); throw new Error('mine'); }, 1); }"
        assert runtime.call(code, req_id="second").json["req_id"] == "second"
        assert first.answer().body == b'"from another call"'


def test_a_huge_result_is_answered_or_told(runtime: Runtime) -> None:
    assert len(runtime.call("return cb => cb(null, 'x'.repeat(5e7))").body) == 50_000_002
    answer = runtime.call("const s = 'x'.repeat(4e8); return cb => cb(null, [s, s])")
    assert (answer.status, answer.json["reason"]) == (400, "not_serializable")
    assert_serves(runtime)


def test_a_result_that_nobody_takes_holds_nobody_up(runtime: Runtime) -> None:
    with runtime.begin("return cb => cb(null, 'x'.repeat(6e7))"):
        for _ in range(5):
            assert_serves(runtime)
    assert_serves(runtime)


def test_a_loop_after_the_answer_does_not_delay_the_answer(runtime: Runtime) -> None:
    code = "return cb => { cb(null, 'first'); const end = Date.now() + 1500; while (Date.now() < end); }"
    with runtime.begin(code) as connection:
        connection.sock.settimeout(1.2)
        assert connection.answer().body == b'"first"'


# --- pollution of what the runtime is built on --------------------------------------------------------------

BREAK = """
// Each function of each built-in of the language, one at a time, made to throw: the next call must not notice.
const { setTimeout } = globalThis;
const places = [];
const names = ['Object', 'Function', 'Array', 'String', 'Number', 'Boolean', 'Symbol', 'BigInt', 'Map', 'Set', 'WeakMap', 'WeakSet',
  'WeakRef', 'Promise', 'RegExp', 'Date', 'Error', 'TypeError', 'RangeError', 'SyntaxError', 'JSON', 'Math', 'Reflect', 'Proxy',
  'ArrayBuffer', 'DataView', 'Uint8Array', 'FinalizationRegistry', 'AggregateError', 'Iterator', 'Atomics'];
const add = (label, object) => {
  for (const key of Reflect.ownKeys(object)) {
    const found = Reflect.getOwnPropertyDescriptor(object, key);
    if (!found.configurable && !found.writable) continue;
    if (typeof found.value !== 'function' && typeof found.get !== 'function') continue;
    places.push([label + String(key), object, key, found]);
  }
};
for (const name of names) {
  add(name + '.', globalThis[name]);
  if (globalThis[name].prototype) add(name + '.prototype.', globalThis[name].prototype);
}
add('TypedArray.prototype.', Object.getPrototypeOf(Uint8Array.prototype));
add('ArrayIterator.', Object.getPrototypeOf([][Symbol.iterator]()));
const { defineProperty } = Reflect;
let broken;
return function (context, cb) {
  const { n, count } = context.query;
  if (count) return cb(null, places.length);
  if (broken) { defineProperty(broken[1], broken[2], broken[3]); broken = undefined; }
  if (n === 'end') return cb(null, 'restored');
  const place = places[n];
  const boom = function () { throw new TypeError('broken: ' + place[0]); };
  const next = place[3].get ? { get: boom, set: boom, configurable: true } : { value: boom, writable: true, configurable: true };
  cb(null, place[0]);
  if (defineProperty(place[1], place[2], next)) broken = place;
};
"""

FOREIGN_VALUES = """
let undo = () => {};
return function (context, cb) {
  undo();
  const { define } = context.query;
  if (!define) return cb(null, 'restored');
  cb(null, 'polluted');
  const properties = JSON.parse(define);
  for (const key of properties) Object.defineProperty(Object.prototype, key, { value: context.query.value, configurable: true, writable: true, enumerable: true });
  undo = () => { for (const key of properties) delete Object.prototype[key]; };
};
"""


def test_no_broken_builtin_of_the_language_reaches_a_neighbour(runtime: Runtime) -> None:
    neighbours = [
        ("return cb => cb(null, 'plain')", b'"plain"', 200),
        ("return async (context, cb) => context.data.a", b'"1"', 200),
        ("return cb => cb('failed')", b'{"code":400,"reason":"script_error"', 400),
    ]
    for code, _, _ in neighbours:
        runtime.call(code, target="/acme?a=1")
    count = runtime.call(BREAK, target="/acme?count=1").json
    assert count > 400
    bad = []
    for n in range(count):
        place = runtime.call(BREAK, target=f"/acme?n={n}").json
        for code, body, status in neighbours:
            answer = runtime.call(code, target="/acme?a=1", req_id="n")
            if answer.status != status or not answer.body.startswith(body):
                bad.append((place, code, answer))
    assert runtime.call(BREAK, target="/acme?n=end").json == "restored"
    assert bad == []


@pytest.mark.parametrize(
    "name",
    [
        "_httpMessage", "blockList", "captureRejections", "defaultEncoding", "encoding", "highWaterMark",
        "keepAliveInitialDelay", "objectMode", "readableObjectMode", "removeListener", "resume", "signal", "timeout",
        "typeOfService", "writableObjectMode", "write", "writev",
    ],
)  # fmt: skip
def test_names_that_node_takes_for_options_are_undone(runtime: Runtime, name: str) -> None:
    runtime.call(OK)
    runtime.call(f"Object.prototype.{name} = 'text'; return cb => cb()", req_id="guilty")
    assert_serves(runtime)
    assert (
        Record(50, "guilty", f"Built-in objects were changed so that Node cannot work; undone: {name}")
        in runtime.records()
    )


def test_a_replaced_builtin_that_works_stays(runtime: Runtime) -> None:
    code = """const { push } = Array.prototype; globalThis.pushed = 0;
        Array.prototype.push = function (...all) { globalThis.pushed++; return Reflect.apply(push, this, all); };
        return cb => cb(null, 'patched')"""
    assert runtime.call(code).body == b'"patched"'
    assert runtime.call("return cb => { pushed = 0; [].push(1); cb(null, pushed); }").body == b"1"
    assert runtime.read_frames() == b""


@pytest.mark.parametrize(
    "name", ["String.prototype.slice", "Function.prototype.bind", "RegExp.prototype.test", "Array.prototype.push"]
)
def test_a_builtin_broken_in_a_later_turn_costs_the_next_request_at_most(runtime: Runtime, name: str) -> None:
    code = f"return cb => {{ cb(); setTimeout(() => {{ {name} = () => {{ throw 1; }}; }}, 1); }}"
    with runtime.begin("return cb => setTimeout(cb, 200, null, 'in flight')") as neighbour:
        runtime.call(code)
        time.sleep(0.05)
        with runtime.connect() as unlucky:
            unlucky.sock.sendall(b"GET / HTTP/1.1\r\nx-sandpost-op: probe\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                unlucky.sock.recv(1000)  # an answer or the end of the connection, and at once
        assert_serves(runtime)
        assert neighbour.answer().body == b'"in flight"'


def test_a_builtin_broken_for_good_ends_the_process(runtime: Runtime) -> None:
    code = """Object.defineProperty(Function.prototype, 'bind', { value: null, configurable: false, writable: false });
        return cb => setTimeout(cb, 60000)"""
    with runtime.begin(code) as connection:
        assert runtime.process.wait(10) == 1
        assert connection.sock.recv(1) == b""


@pytest.mark.parametrize("value", ["", "text", "1"])
def test_foreign_properties_on_every_object_reach_no_neighbour(runtime: Runtime, value: str) -> None:
    keys = [
        "a", "code", "reason", "status", "statusCode", "source", "error", "message", "lines", "upgrade", "x-sandpost-op",
        "x-sandpost-code", "x-sandpost-req", "x-sandpost-unknown", "program", "kind", "call", "exchange", "next", "value",
        "writable", "enumerable", "filename", "importModuleDynamically", "maxKeys", "calls", "used", "size", "loaded", "arity",
        "main", "length2", "growing", "replace", "webtask", "compiler", "0", "1", "settled", "gone", "line", "column",
    ]  # fmt: skip
    runtime.call(OK)
    target = f"/acme?value={value}&define={json.dumps(keys).replace(' ', '')}"
    assert runtime.call(FOREIGN_VALUES, target=target).json == "polluted"
    assert_serves(runtime)
    assert runtime.call("return cb => cb('e')").json["details"] == "e"
    assert runtime.load("return (").status == 400
    assert runtime.call(FOREIGN_VALUES).json == "restored"


def test_what_a_neighbour_reads_is_its_own(runtime: Runtime) -> None:
    """A polluted toJSON decides what JSON.stringify says in this process; it must still be one typed answer."""
    runtime.call("Object.prototype.toJSON = () => { throw new Error('polluted'); }; return cb => cb()")
    assert runtime.call(OK).body == b'"ok"'
    answer = runtime.call("return cb => cb(null, { a: 1 })")
    assert (answer.status, answer.json["reason"]) == (400, "not_serializable")
    assert runtime.call("return cb => cb({ a: 1 })").json["details"] == "[object Object]"


def test_replaced_functions_of_node_are_not_used(runtime: Runtime) -> None:
    runtime.call("""
        const fs = require('fs'), vm = require('vm'), qs = require('querystring');
        const boom = () => { throw new Error('replaced'); };
        fs.writeSync = vm.compileFunction = qs.parse = Buffer.concat = boom;
        globalThis.setTimeout = globalThis.setImmediate = boom; process.getBuiltinModule = boom;
        return cb => cb()""")
    assert runtime.call("console.log('x'); return (c, cb) => cb(null, c.query)", target="/a?b=1").json == {"b": "1"}
    assert runtime.records() == [Record(30, "req-1", "x")]

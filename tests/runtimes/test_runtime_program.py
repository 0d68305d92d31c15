"""What a program gets: context, body, request, modules, and who it shares them with."""

import json

import pytest

from support.runtime import Runtime


def test_a_query_that_names_prototypes_is_data(runtime: Runtime) -> None:
    code = """return (context, cb) => cb(null, {
        own: Object.keys(context.data), inherited: context.data.polluted || 'no', plain: {}.polluted || 'no',
        hasOwn: context.data.hasOwnProperty('a') })"""
    seen = runtime.call(code, target="/acme?__proto__=x&__proto__[polluted]=1&constructor=c&a=1").json
    assert seen == {
        "own": ["__proto__", "__proto__[polluted]", "constructor", "a"],
        "inherited": "no",
        "plain": "no",
        "hasOwn": True,
    }


def test_a_query_of_many_keys(runtime: Runtime) -> None:
    target = "/acme?" + "&".join(f"k{n}=1" for n in range(5000))
    assert runtime.call("return (c, cb) => cb(null, Object.keys(c.query).length)", target=target).body == b"5000"


def test_the_context_is_extensible_and_each_call_has_its_own(runtime: Runtime) -> None:
    code = "return (c, cb) => { const seen = c.mark || 'none'; c.mark = c.data.mark = 1; cb(null, seen); }"
    assert [runtime.call(code).body for _ in range(2)] == [b'"none"', b'"none"']


@pytest.mark.parametrize(
    ("kind", "body", "parsed"),
    [
        ("application/json", '{"a": [1]}', {"a": [1]}),
        ("application/json; charset=utf-8", '"text"', "text"),
        ("application/vnd.api+json", "{}", {}),
        ("application/json", "{not json", None),
        ("application/x-www-form-urlencoded", "a=1&b=x+y&b=%C3%BC", {"a": "1", "b": ["x y", "\u00fc"]}),
        ("text/plain", '{"a": 1}', None),
        ("", '{"a": 1}', None),
    ],
)
def test_bodies_of_context_programs(runtime: Runtime, kind: str, body: str, parsed: object) -> None:
    headers = {"content-type": kind} if kind else {}
    code = "return (c, cb) => cb(null, { raw: c.body_raw, has: 'body' in c, body: c.body })"
    seen = runtime.call(code, "POST", headers=headers, body=body.encode()).json
    assert seen == {"raw": body, "has": True, "body": parsed} if parsed is not None else {"raw": body, "has": False}


def test_a_json_body_that_names_prototypes_changes_none(runtime: Runtime) -> None:
    code = "return (c, cb) => cb(null, { own: Object.keys(c.body), polluted: {}.polluted || 'no' })"
    headers = {"content-type": "application/json"}
    body = b'{"__proto__": {"polluted": 1}, "constructor": {"prototype": {"polluted": 1}}}'
    assert runtime.call(code, "POST", headers=headers, body=body).json["polluted"] == "no"


def test_a_body_arrives_in_pieces(runtime: Runtime) -> None:
    code = "return (c, cb) => cb(null, c.body.length)"
    body = json.dumps(["x" * 100] * 20_000).encode()
    assert runtime.call(code, "POST", headers={"content-type": "application/json"}, body=body).body == b"20000"


def test_a_callback_program_answers_without_the_body(runtime: Runtime) -> None:
    code = "return cb => cb(null, 1)"
    with runtime.begin(code, "POST", headers={"content-length": "100"}, end=False) as connection:
        assert connection.answer().body == b"1"


def test_the_one_parameter_of_an_async_function_is_callback_and_context(runtime: Runtime) -> None:
    as_context = "return async function (context) { return [context.data.a, context.body, context.headers.host]; }"
    headers = {"content-type": "application/json"}
    assert runtime.call(as_context, "POST", "/acme?a=1", headers, b'{"b":2}').json == ["1", {"b": 2}, "runtime"]
    as_callback = "return async function (cb) { setTimeout(cb, 5, null, 'called'); }"
    assert runtime.call(as_callback).body == b'"called"'


def test_a_promise_of_undefined_is_no_answer(runtime: Runtime) -> None:
    code = "return async (context, cb) => { setTimeout(cb, 30, null, 'by the callback'); }"
    assert runtime.call(code).body == b'"by the callback"'


def test_the_first_of_callback_and_promise_counts(runtime: Runtime) -> None:
    assert runtime.call("return async (context, cb) => { cb(null, 'cb'); return 'promise'; }").body == b'"cb"'
    assert (
        runtime.call("return async (c, cb) => { setTimeout(cb, 20, null, 'cb'); return 'promise'; }").body
        == b'"promise"'
    )


def test_the_value_of_a_request_programs_promise_is_ignored(runtime: Runtime) -> None:
    code = "return async (context, req, res) => { setTimeout(() => res.end('mine'), 20); return 'value'; }"
    assert runtime.call(code).body == b"mine"


def test_a_promise_with_a_then_of_its_own(runtime: Runtime) -> None:
    code = """
    class Lazy extends Promise { then(...a) { Lazy.asked = true; return super.then(...a); } }
    return cb => Lazy.resolve('lazy').then(v => v + (Lazy.asked ? ' asked' : ''))"""
    assert runtime.call(code).body == b'"lazy asked"'


def test_request_programs_know_where_they_are(runtime: Runtime) -> None:
    code = "return (context, req, res) => res.end(JSON.stringify([req.url, req.x_wt, req.method, context.id]))"
    assert runtime.call(code, "PUT", "/acme/a/b?c=1").json == [
        "/acme/a/b?c=1", {"container": "acme", "url_format": 1}, "PUT", "req-1"
    ]  # fmt: skip
    assert runtime.call(code, "GET", "/acme?c=/x").json[1]["container"] == "acme"


def test_a_request_program_reads_its_body_itself(runtime: Runtime) -> None:
    code = """return async (context, req, res) => {
        let text = ''; for await (const chunk of req) text += chunk;
        res.end(JSON.stringify([text, 'body' in context])); }"""
    assert runtime.call(code, "POST", headers={"content-type": "application/json"}, body=b"[1]").json == ["[1]", False]
    assert runtime.call(code, "GET").json == ["", False]


def test_modules_of_node_can_be_required(runtime: Runtime) -> None:
    code = """
    const { join } = require('path'); const fs = require('node:fs');
    return cb => cb(null, [join('a', 'b'), typeof fs.readFileSync, require.resolve('fs'), module.require === require,
      module.id, module.loaded, __filename, __dirname, typeof require('crypto').createHash, require('os') === require('os')])"""
    assert runtime.call(code).json == [
        "a/b", "function", "fs", True, "webtask.js", True, "webtask.js", ".", "function", True
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["'express'", "'./x'", "'/etc/passwd'", "'../main.js'", "'node:nothing'", "5", "''", "{}"]
)
def test_other_modules_cannot(runtime: Runtime, name: str) -> None:
    code = f"return cb => {{ try {{ require({name}); }} catch (e) {{ cb(null, [e.code, e.message]); }} }}"
    code_word, message = runtime.call(code).json
    assert code_word == "MODULE_NOT_FOUND"
    assert message.startswith("Cannot find module ")


def test_modules_of_node_can_be_imported(runtime: Runtime) -> None:
    assert runtime.call("return async cb => (await import('node:path')).join('a', 'b')").body == b'"a/b"'


def test_a_program_keeps_its_globals_and_works_on_after_its_answer(runtime: Runtime) -> None:
    code = """
    let calls = 0, later = 0;
    return cb => { cb(null, [++calls, later]); setTimeout(() => { later++; }, 1); }"""
    assert runtime.call(code).json == [1, 0]
    runtime.call("return cb => setTimeout(cb, 20)")
    assert runtime.call(code).json == [2, 1]


def test_two_programs_share_the_process_and_not_their_modules(runtime: Runtime) -> None:
    one = "let mine = 'one'; module.exports = cb => cb(null, [mine, globalThis.shared = 'by one']); // 1"
    two = "let mine = 'two'; module.exports = cb => cb(null, [mine, globalThis.shared]); // 2"
    assert runtime.call(one).json == ["one", "by one"]
    assert runtime.call(two).json == ["two", "by one"]


def test_code_is_sloppy_unless_it_says_otherwise(runtime: Runtime) -> None:
    assert runtime.call("x = 1; return function (cb) { cb(null, typeof this); }").body == b'"object"'
    assert runtime.call("'use strict'; return function (cb) { cb(null, typeof this); }").body == b'"undefined"'


def test_fetch_works_and_is_nodes_own_afterwards(runtime: Runtime) -> None:
    code = """return async (context, cb) => {
        const before = fetch, r = await fetch('data:text/plain,hi'), after = fetch;
        return [await r.text(), before === after, (await (await fetch('data:,again')).text())]; }"""
    assert runtime.call(code).json == ["hi", False, "again"]

"""What a program in Python gets: context, body, streams, modules, and who it shares them with."""

import json

import pytest

from support.runtime import Connection, Runtime

SHOW = "def main(context):\n    return context"


@pytest.mark.parametrize("word", ["def", "async def"])
def test_its_fields_are_attributes_and_items(python: Runtime, word: str) -> None:
    code = f"""
{word} main(context):
    context.mark = 1
    context['other'] = 2
    del context.params
    return [context.data['a'], context['data']['a'], context.id == context['id'], context.other, context['mark'],
            context.body, context.get('body'), 'params' in context, hasattr(context, 'nothing')]"""
    assert python.call(code, target="/acme?a=x").json == ["x", "x", True, 2, 1, None, None, False, False]


def test_a_field_that_is_not_there_is_told(python: Runtime) -> None:
    body = python.call("def main(context):\n    return context.boody").json
    assert (body["name"], body["message"]) == ("AttributeError", "the context has no field 'boody'")


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("a=%", {"a": "%"}), ("a=%4", {"a": "%4"}), ("a=%zz", {"a": "%zz"}), ("a=%ff", {"a": "\ufffd"}), ("a=%2B+", {"a": "+ "}),
        ("&&a=1&", {"a": "1"}), ("=x", {"": "x"}), ("a=b=c", {"a": "b=c"}), ("a=%+1", {"a": "% 1"}), ("__class__=x", {"__class__": "x"}),
        ("a", {"a": ""}), ("", {}),
    ],
)  # fmt: skip
def test_a_query_is_read_as_it_comes(python: Runtime, query: str, seen: dict[str, str]) -> None:
    assert python.call(SHOW, target=f"/acme?{query}").json["query"] == seen


def test_each_call_has_its_own_context(python: Runtime) -> None:
    code = "def main(c):\n    seen = c.get('mark', 'none')\n    c.mark = c.data['mark'] = 1\n    return seen"
    assert [python.call(code).body for _ in range(2)] == [b'"none"', b'"none"']


@pytest.mark.parametrize(
    ("kind", "body", "parsed"),
    [
        ("application/json", '{"a": [1]}', {"a": [1]}),
        ("application/json; charset=utf-8", '"text"', "text"),
        ("application/vnd.api+json", "{}", {}),
        ("application/json", "{not json", None),
        ("application/json", "[" * 100_000, None),
        ("application/x-www-form-urlencoded", "a=1&b=x+y&b=%C3%BC", {"a": "1", "b": ["x y", "\u00fc"]}),
        ("text/plain", '{"a": 1}', None),
        ("", '{"a": 1}', None),
    ],
)
@pytest.mark.parametrize("word", ["def", "async def"])
def test_bodies_of_context_programs(python: Runtime, kind: str, body: str, parsed: object, word: str) -> None:
    headers = {"content-type": kind} if kind else {}
    code = f"{word} main(c):\n    return {{'raw': c.body_raw, 'has': 'body' in c, 'body': c.body}}"
    seen = python.call(code, "POST", headers=headers, body=body.encode()).json
    assert seen == {"raw": body, "has": parsed is not None, "body": parsed}


def test_a_body_arrives_in_pieces(python: Runtime) -> None:
    body = json.dumps(["x" * 100] * 20_000).encode()
    headers = {"content-type": "application/json"}
    assert python.call("def main(c):\n    return len(c.body)", "POST", headers=headers, body=body).body == b"20000"


def test_a_chunked_body_is_put_together(python: Runtime) -> None:
    with python.begin(
        "def main(c):\n    return c.body_raw", "POST", headers={"transfer-encoding": "chunked"}, end=False
    ) as connection:
        for piece in (b"3\r", b"\nabc\r\n", b"A;ext=1\r\n01234", b"56789\r\n0\r", b"\nx-trailer: 1\r\n", b"\r\n"):
            connection.sock.sendall(piece)
        assert connection.answer().body == b'"abc0123456789"'


STREAM = """
import json
{word} main(context, request, response):
    {wait}response.write(json.dumps([request.url, request.path, request.x_wt, request.method, context.id, request.headers]))
"""


@pytest.mark.parametrize(("word", "wait"), [("def", ""), ("async def", "await ")])
def test_request_programs_know_where_they_are(python: Runtime, word: str, wait: str) -> None:
    code = STREAM.format(word=word, wait=wait)
    seen = python.call(code, "PUT", "/acme/a/b?c=1").json
    assert seen == ["/acme/a/b?c=1", "/acme/a/b", {"container": "acme", "url_format": 1}, "PUT", "req-1", seen[5]]
    assert seen[5]["host"] == "runtime"
    assert python.call(code, "GET", "/acme?c=/x").json[2]["container"] == "acme"


@pytest.mark.parametrize(("word", "wait", "loop"), [("def", "", "for"), ("async def", "await ", "async for")])
def test_a_request_program_reads_its_body_itself(python: Runtime, word: str, wait: str, loop: str) -> None:
    code = f"""
{word} main(context, request, response):
    pieces = []
    {loop} piece in request:
        pieces.append(piece)
    {wait}response.write(b''.join(pieces))
    {wait}response.write(repr(('body' in context, {wait}request.body(), {wait}request.read())))"""
    headers = {"content-type": "application/json"}
    assert python.call(code, "POST", headers=headers, body=b"[1]").body == b"[1](False, b'', b'')"
    assert python.call(code).body == b"(False, b'', b'')"


@pytest.mark.parametrize(("word", "wait"), [("def", ""), ("async def", "await ")])
def test_a_request_program_chooses_status_and_headers(python: Runtime, word: str, wait: str) -> None:
    code = f"""
{word} main(context, request, response):
    response.status = 201
    response.headers['x-one'] = 1
    response.headers['set-cookie'] = ['a=1', 'b=2']
    {wait}response.write('text')
    {wait}response.write(bytearray(b' and bytes'))
    return 'ignored'"""
    answer = python.call(code)
    assert (answer.status, answer.body) == (201, b"text and bytes")
    assert (answer.headers["x-one"], answer.headers["set-cookie"]) == ("1", "a=1, b=2")


@pytest.mark.parametrize(("word", "wait"), [("def", ""), ("async def", "await ")])
def test_an_answer_without_a_body(python: Runtime, word: str, wait: str) -> None:
    assert python.call(f"{word} main(c, q, s):\n    s.status = 204").status == 204
    named = f"from http import HTTPStatus\n{word} main(c, q, s):\n    s.status = HTTPStatus.IM_A_TEAPOT"
    assert python.call(named).status == 418
    assert python.call(f"{word} main(c, q, s):\n    {wait}s.start()").body == b""
    assert python.call(f"{word} main(c, q, s):\n    pass").status == 200


def test_modules_of_python_can_be_imported(python: Runtime) -> None:
    code = """
import asyncio, collections, ctypes, csv, datetime, decimal, email, hashlib, http.client, json, logging, math, os.path
import pickle, random, re, sqlite3, ssl, statistics, subprocess, tempfile, threading, typing, unittest.mock, urllib.request
import xml.etree.ElementTree, zipfile, zlib, zoneinfo
def main(context):
    return [hashlib.sha256(b'x').hexdigest()[:4], ssl.OPENSSL_VERSION[:7], sqlite3.connect(':memory:').execute('select 1').fetchone()[0]]"""
    assert python.call(code).json == ["2d71", "OpenSSL", 1]


def test_the_runtimes_own_modules_are_not_on_the_way(python: Runtime) -> None:
    code = "import sys\ndef main(context):\n    return [p for p in sys.path if 'shipped' in p or p == '']"
    assert python.call(code).json == []


def test_a_program_keeps_its_globals_and_works_on_after_its_answer(python: Runtime) -> None:
    code = """
import asyncio
calls = later = 0
async def more():
    global later
    await asyncio.sleep(0.01)
    later += 1
async def main(context):
    global calls
    calls += 1
    main.task = asyncio.create_task(more())
    return [calls, later]"""
    assert python.call(code).json == [1, 0]
    python.call("import time\ndef main(c):\n    time.sleep(0.05)")
    assert python.call(code).json == [2, 1]


def test_two_programs_share_the_process_and_not_their_modules(python: Runtime) -> None:
    one = "import sys\nmine = 'one'\ndef main(c):\n    sys.shared = 'by one'\n    return [mine, sys.shared]"
    two = "import sys\nmine = 'two'\ndef main(c):\n    return [mine, sys.shared]"
    assert python.call(one).json == ["one", "by one"]
    assert python.call(two).json == ["two", "by one"]


def test_the_top_level_runs_once_for_calls_that_come_together(python: Runtime) -> None:
    code = "import time\ntime.sleep(0.2)\nruns = globals().get('runs', 0) + 1\nimport sys\nsys.tops = getattr(sys, 'tops', 0) + 1\ndef main(c):\n    return [runs, sys.tops]"
    python.load(code)
    connections = [python.begin(code, req_id=f"r{n}") for n in range(5)]
    try:
        assert [connection.answer().json for connection in connections] == [[1, 1]] * 5
    finally:
        for connection in connections:
            connection.sock.close()


def test_each_call_that_waited_for_a_failing_top_level_is_told_with_its_own_id(python: Runtime) -> None:
    code = "import time\ntime.sleep(0.2)\n1 / 0"
    connections: list[Connection] = [python.begin(code, req_id=f"r{n}") for n in range(3)]
    try:
        answers = [connection.answer() for connection in connections]
    finally:
        for connection in connections:
            connection.sock.close()
    assert [(answer.status, answer.json["req_id"], answer.json["line"]) for answer in answers] == [
        (400, "r0", 3), (400, "r1", 3), (400, "r2", 3)
    ]  # fmt: skip


def test_classes_of_a_program_can_be_pickled_and_know_their_annotations(python: Runtime) -> None:
    code = """
from __future__ import annotations
import pickle
from dataclasses import dataclass
from typing import ClassVar, get_type_hints
@dataclass
class P:
    kind: ClassVar[str] = 'k'
    x: int = 1
def main(context):
    return [pickle.loads(pickle.dumps(P(5))), list(get_type_hints(P))]"""
    assert python.call(code).json == [{"x": 5}, ["kind", "x"]]

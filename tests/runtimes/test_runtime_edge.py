"""`require('edge')`: what Edge.js documents, what it is kept from, and whose what happens is."""

import contextlib
import json
import re
import time
from pathlib import Path

import h11
import pytest

from support.modules import npm
from support.runtime import JAVASCRIPT, TYPESCRIPT, Answer, Runtime, StartRuntime

MiB = 1 << 20
EDGE = "const edge = require('edge');\n"


def edge_call(runtime: Runtime, code: str, **options: str) -> Answer:
    return runtime.call(EDGE + code, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["edge", "edge-js"])
def test_it_is_required_by_either_name(edge: Runtime, name: str) -> None:
    assert edge.call(f"return cb => require('{name}').func('async x => x')(1, cb)").body == b"1"


# --- what Edge.js documents -----------------------------------------------------------------------------------

HELLO = '".NET Welcomes " + input.ToString()'


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (f"return cb => edge.func(function () {{/*\n async (input) => {{ return {HELLO}; }}\n*/}})('JavaScript', cb)",
         ".NET Welcomes JavaScript"),
        (f"return cb => edge.func(`\n async (input) => {{ return {HELLO}; }}\n`)('JavaScript', cb)",
         ".NET Welcomes JavaScript"),
        (f"return cb => edge.func('cs', `async (input) => {{ return {HELLO}; }}`)('JavaScript', cb)",
         ".NET Welcomes JavaScript"),
        ("return cb => edge.func(`async (dynamic input) => { return \"Welcome \" + input.name; }`)({ name: 'John' }, cb)",
         "Welcome John"),
        # A class, by its default names and by others.
        ("""return cb => edge.func(function () {/*
            using System.Threading.Tasks;
            public class Startup { public async Task<object> Invoke(object input) { return (int)input + 7; } }
         */})(12, cb)""", 19),
        ("""return cb => edge.func({ source: `
            using System.Threading.Tasks;
            namespace Here { public class Add { int all; public async Task<object> More(dynamic by) { return all += (int)by; } } }
         `, typeName: 'Here.Add', methodName: 'More' })(3, cb)""", 3),
        # References, in both ways.
        ("""return cb => edge.func(function () {/*
            #r "System.Data.dll"
            using System.Data;
            async (input) => { return new DataTable("rows").TableName; }
         */})(null, cb)""", "rows"),
        ("""return cb => edge.func({ source: `using System.Numerics;
            async (input) => { return BigInteger.Pow(2, 70).ToString(); }`, references: ['System.Numerics.dll'] })(null, cb)""",
         "1180591620717411303424"),
        # At once, instead of by a callback.
        ("return cb => cb(null, edge.func(`async (input) => { return (int)input + 1; }`)(1, true))", 2),
        # Types from JavaScript.
        ("""return cb => edge.func(`async (dynamic input) => {
              return (int)input.anInteger == 1 && (double)input.aNumber == 3.1415 && (string)input.aString == "foo"
                && (bool)input.aBoolean && ((byte[])input.aBuffer).Length == 10 && ((object[])input.anArray).Length == 2
                && (int)input.anObject.b == 12 && ((DateTime)input.aDate).Year == 2026 && input.nothing == null;
            }`)({ anInteger: 1, aNumber: 3.1415, aString: 'foo', aBoolean: true, aBuffer: Buffer.alloc(10), anArray: [1, 'foo'],
              anObject: { a: 'foo', b: 12 }, aDate: new Date(Date.UTC(2026, 5)), nothing: null }, cb)""", True),
        # Types to JavaScript.
        ("""return cb => edge.func(`using System.Threading.Tasks;
            public class Person {
              public int anInteger = 1; public double aNumber = 3.1415; public string aString = "foo"; public bool aBoolean = true;
              public byte[] aBuffer = new byte[2]; public object[] anArray = new object[] { 1, "foo" };
              public object anObject = new { a = "foo", b = 12 };
            }
            public class Startup { public async Task<object> Invoke(dynamic input) { return new Person(); } }`)(null, cb)""",
         {"anInteger": 1, "aNumber": 3.1415, "aString": "foo", "aBoolean": True,
          "aBuffer": {"type": "Buffer", "data": [0, 0]}, "anArray": [1, "foo"], "anObject": {"a": "foo", "b": 12}}),
        ("""return cb => edge.func(`async (input) => new {
              guid = Guid.Empty, uri = new Uri("http://a/b"), date = new DateTime(2026, 1, 2, 3, 4, 5, DateTimeKind.Utc),
              offset = new DateTimeOffset(2026, 1, 2, 3, 4, 5, TimeSpan.Zero), day = DayOfWeek.Friday, one = 'x', big = 1L << 40,
              money = 1.5m, map = new Dictionary<string, int> { { "a", 1 } }, list = new List<int> { 1, 2 }, none = (object)null }`)
            (null, cb)""",
         {"guid": "00000000-0000-0000-0000-000000000000", "uri": "http://a/b", "date": "2026-01-02T03:04:05.000Z",
          "offset": "2026-01-02T03:04:05.0000000+00:00", "day": "Friday", "one": "x", "big": 1 << 40, "money": "1.5",
          "map": {"a": 1}, "list": [1, 2], "none": None}),
        # .NET calls JavaScript.
        ("""return cb => edge.func(`async (dynamic input) => {
              var add = (Func<object, Task<object>>)input.add;
              var twoNumbers = new { a = (int)input.a, b = (int)input.b };
              return (int)await add(twoNumbers) * 2;
            }`)({ a: 2, b: 3, add: (data, callback) => callback(null, data.a + data.b) }, cb)""", 10),
        # JavaScript calls what .NET hands out.
        ("""return cb => {
              const counter = edge.func(`async (input) => { var k = (int)input;
                return (Func<object, Task<object>>)(async (i) => { return ++k; }); }`)(12, true);
              cb(null, [counter(null, true), counter(null, true)]);
            }""", [13, 14]),
        ("""return cb => edge.func(`async (dynamic input) => new { a = new object[] { (Func<object, Task<object>>)(async x => (int)x * 2) } }`)
            ({}, (error, made) => made.a[0](21, cb))""", 42),
        # Functions both ways, nested.
        ("""return cb => edge.func(`async (dynamic input) => {
              var give = (Func<object, Task<object>>)input.give;
              var got = (Func<object, Task<object>>)await give((Func<object, Task<object>>)(async x => (int)x + 1));
              return await got(1);
            }`)({ give: (next, done) => done(null, (data, answer) => next(data, (error, value) => answer(error, value * 10))) }, cb)""",
         20),
        # Bytes.
        ("""return cb => edge.func(`async (dynamic input) => { Array.Reverse((byte[])input); return input; }`)
            (Buffer.from('abc'), (error, bytes) => cb(error, Buffer.isBuffer(bytes) && bytes.toString()))""", "cba"),
        # Texts and numbers that JSON, or Edge.js by itself, has no form for.
        (r"""return cb => edge.func(`async x => x`)(['\0', '\0\0a', '\x001', 'a\0b', { '\0k': '"\\\n\u2028' }, 4294967295, 1e21, -0.5, 1e-7],
            cb)""", ["\0", "\0\0a", "\x001", "a\0b", {"\0k": '"\\\n\u2028'}, "4294967295", 1e21, -0.5, 1e-7]),
        ("return cb => edge.func(`async x => x`)([0, -0, 2147483647, -2147483648, 2147483648, 9999999999, -1e10, 1e300], cb)",
         [0, 0, 2147483647, -2147483648, "2147483648", 9999999999, -1e10, 1e300]),
        ("""return cb => edge.func(`async x => ((object[])x).Select(one => one.GetType().Name)`)
            ([1, -2147483648, 2147483648, 4294967296, 0.5, -2147483649], cb)""",
         ["Int32", "Int32", "UInt32", "Double", "Double", "Double"]),
        # Objects of the same names, one after another and within each other; of many names, and of long ones.
        ("""return cb => edge.func(`async (dynamic x) => { x.more = x.a.a.b; ((IDictionary<string, object>)x.a).Remove("a"); return x; }`)
            ({ a: { a: { a: 1, b: 2 }, b: {} }, b: [{ a: 1, b: 2 }, { a: 3, b: 4 }, { b: 5, a: 6 }, { a: 7, b: 8, c: { a: { b: 9 } } }, {}] }, cb)""",
         {"a": {"b": {}}, "b": [{"a": 1, "b": 2}, {"a": 3, "b": 4}, {"b": 5, "a": 6}, {"a": 7, "b": 8, "c": {"a": {"b": 9}}}, {}],
          "more": 2}),
        ("""return cb => {
              const many = {}; for (let i = 0; i < 3000; i++) many[`${i % 7 ? 'k' : 'k'.repeat(100)}${i}`] = { [i]: i };
              edge.func(`async x => x`)([many, many], (e, v) => cb(e, v.every(one => JSON.stringify(one) === JSON.stringify(many))));
            }""", True),
        ("""return cb => {
              const look = edge.func(`async x => { var map = (IDictionary<string, object>)x; var keys = map.Keys.ToArray();
                map.Remove(keys[0]);
                return new object[] { map.Count, map.ToList().Count, keys.Length, map.Values.Count, ((dynamic)x).b }; }`);
              look({ a: 1, b: 2, c: 3 }, () => look({ a: 4, b: 5, c: 6 }, cb));
            }""", [2, 2, 3, 2, 5]),
        ("return cb => edge.func(`async x => x`)([NaN, Infinity, undefined], (e, v) => cb(e, v.map(String)))",
         ["NaN", "Infinity", "null"]),
        ("return cb => edge.func('delegate (object x) { return Task.FromResult<object>(x); }')(5, cb)", 5),
        ("return cb => edge.func('// a comment\\n/* and another */ x => Task.FromResult<object>(x) // end')(6, cb)", 6),
    ],
)  # fmt: skip
def test_what_edge_documents(edge: Runtime, code: str, result: object) -> None:
    answer = edge_call(edge, code)
    assert (answer.status, answer.json) == (200, result), answer


def test_every_character_goes_both_ways(edge: Runtime, clr: str) -> None:
    """As a text, in pieces, and as a name; characters of two units of UTF-16, and nothing."""
    # CoreCLR's half of Edge.js has texts in UTF-8, which has no halves of such characters.
    without = "" if clr == "mono" else r".replace(/[\ud800-\udfff]/g, '')"
    code = rf"""return cb => {{
      const units = String.fromCharCode(...Array(65536).keys()){without};
      const texts = [units, units.replace(/[\0\ud800-\udfff]/g, ''), '\u{{1f600}}'.repeat(40000), '', 's1:a', ...units.slice(0, 1000)];
      edge.func(`async x => x`)([texts, {{ [units]: {{ '': 1, [texts[1]]: 2 }} }}], (e, v) => {{
        const same = v[0].every((text, i) => text === texts[i]);
        cb(e, [v[0].length, same, v[1][units][''], v[1][units][texts[1]]]);
      }});
    }}"""
    assert edge_call(edge, code).json == [1005, True, 1, 2]
    code = r"return cb => edge.func(`async x => x`)('a\ud800', (e, v) => cb(e, v.charCodeAt(1)))"
    assert edge_call(edge, code).json == (0xD800 if clr == "mono" else 0xFFFD)


def test_an_assembly_of_the_programs_own(edge: Runtime) -> None:
    code = """return (context, cb) => {
        require('fs').writeFileSync('/tmp/people.cs', `using System.Threading.Tasks;
            namespace People { public class Startup { public async Task<object> Invoke(dynamic input) { return input.name; }
              public static string Here = "here"; } }`);
        require('child_process').execFileSync('/usr/bin/mono-sgen', ['/usr/lib/mono/4.5/mcs.exe', '-target:library',
          '-r:Microsoft.CSharp.dll', '-out:/tmp/People.dll', '/tmp/people.cs'], { env: {} });
        const named = edge.func('/tmp/People.dll')({ name: 'John' }, true);
        const referred = edge.func({ source: 'async x => People.Startup.Here', references: ['/tmp/People.dll'] })(null, true);
        cb(null, [named, referred]);
    }"""
    assert edge_call(edge, code).json == ["John", "here"]


@pytest.mark.parametrize("name", ["a.cs", "b.CSX", "source.cs"])
def test_a_source_in_a_file(edge: Runtime, clr: str, name: str) -> None:
    code = f"""const fs = require('fs');
      return (context, cb) => {{
        fs.writeFileSync('/tmp/{name}', context.body);
        process.chdir('/tmp');
        const source = context.data.options ? {{ source: '{name}', references: ['System.Xml.Linq.dll'] }} : '/tmp/{name}';
        edge.func(source)(1, cb);
      }}"""

    def run(source: str, target: str = "/acme") -> Answer:
        return edge_call(edge, code.replace("context.body", json.dumps(source)), target=target)

    assert run("async x => (int)x + 1").json == 2
    # As it is now, not as it was.
    assert (
        run(
            "\ufeffusing System.Threading.Tasks;\npublic class Startup { public async Task<object> Invoke(object x) { return 3; } }"
        ).json
        == 3
    )
    assert run('using System.Xml.Linq;\nasync x => new XElement("a").ToString()', "/acme?options=1").json == "<a />"
    stack = run("async x => {\n\n  throw new Exception(); }").json["stack"]
    assert f"in /tmp/{name}:{'' if clr == 'mono' else 'line '}3" in stack
    body = run("async x =>\n  y").json
    assert (body["reason"], body["name"]) == ("compilation_failed", "SyntaxError")
    assert body["message"].endswith(f"(/tmp/{name}:2:3)")
    assert "line" not in body


def test_a_package_brings_its_source_in_a_file(start_edge: StartRuntime, tmp_path: Path) -> None:
    files = {
        "index.js": "module.exports = require('edge').func(__dirname + '/add.csx')",
        "add.csx": "async x => (int)x + 1",
    }
    (tmp_path / "0").mkdir()
    npm(tmp_path / "0" / "ready", "adder", "1.0.0", files)
    runtime = start_edge({"SANDPOST_MODULES": str(tmp_path / "0" / "ready")})
    assert runtime.call("return cb => require('adder')(1, cb)").json == 2


def test_a_module_imports_it(edge: Runtime) -> None:
    code = "import edge, { func } from 'edge';\nconst f = func('async x => 1');\nexport default cb => f(1, (e, v) => cb(e, [v, edge.func === func]))"
    assert edge.call(code).json == [1, True]


def test_bytes_are_streamed_both_ways(edge: Runtime) -> None:
    code = """return (context, req, res) => {
      const from = [Buffer.from('one '), Buffer.from('two '), null];
      edge.func(`async (dynamic input) => {
        var read = (Func<object, Task<object>>)input.read;
        var write = (Func<object, Task<object>>)input.write;
        for (;;) {
          var bytes = (byte[])await read(null);
          if (bytes == null) return null;
          Array.Reverse(bytes);
          await write(bytes);
        } }`)({ read: (_, done) => setImmediate(done, null, from.shift()), write: (bytes, done) => res.write(bytes, () => done()) },
        () => res.end());
    }"""
    assert edge_call(edge, code).body == b" eno owt"


# --- what goes in is checked ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("(() => { const a = {}; a.b = { c: [a] }; return a; })()", "The input.b.c[0] cannot be handed to .NET: it contains itself"),
        ("{ a: [1, 2n] }", "The input.a[1] cannot be handed to .NET: it is a BigInt"),
        ("{ a: Symbol('x') }", "The input.a cannot be handed to .NET: it is a Symbol"),
        ("{ get a() { throw new Error('trap') } }", "The input.a cannot be handed to .NET: reading it failed: Error: trap"),
        ("new Proxy({}, { ownKeys() { throw new Error('trap') } })", "its keys cannot be listed: Error: trap"),
        ("(() => { let a = 1; for (let i = 0; i < 101; i++) a = [a]; return a; })()", "it is deeper than 100 levels"),
        ("new Date(NaN)", "it is a date that .NET does not have"),
        ("Array(4294967295)", "it has more than 16777216 elements"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["(VALUE, cb)", "(VALUE, true)"])
def test_what_edge_would_die_of_is_the_callers_error(edge: Runtime, value: str, words: str, way: str) -> None:
    answer = edge_call(edge, f"const f = edge.func('async x => 1');\nreturn cb => f{way.replace('VALUE', value)}")
    assert (answer.status, answer.json["reason"], answer.json["name"]) == (400, "script_error", "TypeError")
    assert words in answer.json["message"]
    assert edge_call(edge, "return cb => edge.func('async x => x')(1, cb)").body == b"1"


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("async x => new Node()", 400, "contains itself"),
        (
            "async x => { object a = 1; for (var i = 0; i < 101; i++) a = new[] { a }; return a; }",
            400,
            "deeper than 100",
        ),
        ("async x => (Action)(() => {})", 400, "of functions it takes Func<object, Task<object>>"),
        ("async x => new Bad()", 400, "`Value` of a Bad cannot be read: no"),
        ("async x => typeof(string)", 200, ""),
        ("async x => x.GetType().GetMethods()[0]", 200, ""),
    ],
)
def test_what_would_end_the_process_on_its_way_back_is_told(edge: Runtime, code: str, status: int, words: str) -> None:
    classes = (
        "using System; using System.Threading.Tasks; class Node { public Node Next { get { return this; } } } "
        'class Bad { public int Value { get { throw new Exception("no"); } } } '
        "public class Startup { public async Task<object> Invoke(object y) { Func<object, Task<object>> f = %s; return await f(y); } }"
    )
    answer = edge_call(edge, f"return cb => edge.func(`{classes % code}`)(1, cb)")
    assert answer.status == status, answer
    if words:
        assert words in answer.json["message"]
        assert answer.json["reason"] == "not_serializable"


@pytest.mark.parametrize(
    ("way", "status", "reason"),
    [
        ("return F", 400, "not_serializable"),
        ("return async context => F(1, true)", 400, "not_serializable"),
        ("return cb => cb(null, F(1, true))", 400, "not_serializable"),
        ("return cb => F(1, (error) => cb(new Error(error.message)))", 400, "script_error"),
        ("return cb => F(1, (error) => { throw error })", 500, "async_exception"),
    ],
)
def test_a_result_that_cannot_come_back_is_not_serializable(edge: Runtime, way: str, status: int, reason: str) -> None:
    source = "async x => { var a = new Dictionary<string, object>(); a[`a`] = a; return a; }".replace("`", '"')
    answer = edge_call(edge, f"const F = edge.func('{source}');\n{way}")
    assert (answer.status, answer.json["reason"]) == (status, reason), answer
    assert "contains itself" in answer.json["message"]


def test_what_net_hands_to_a_callback_is_refused_there(edge: Runtime) -> None:
    code = """return cb => edge.func(`async f => { try { await ((Func<object, Task<object>>)f)((Action)(() => {})); return 1; }
      catch (InvalidOperationException e) { return e.Message; } }`)(() => {}, cb)"""
    assert "of functions it takes Func<object, Task<object>>" in edge_call(edge, code).json


@pytest.mark.parametrize("given", ["undefined", "5", "null", "{}", "{ source: 5 }", "function () { return 1 }", "'fs', 'x'",
                                   "{ source: 'x', assemblyFile: 'a.dll' }", "{ source: 'async x => x', references: [1] }",
                                   "{ assemblyFile: 'a.exe' }", "'/tmp/none.csx'"])  # fmt: skip
def test_a_wrong_use_is_the_callers_error(edge: Runtime, given: str) -> None:
    answer = edge_call(edge, f"return cb => edge.func({given})(1, cb)")
    assert (answer.status, answer.json["reason"], answer.json["name"]) == (400, "script_error", "TypeError"), answer


def test_a_source_that_is_not_there_is_told(edge: Runtime) -> None:
    assert "no quotes" in edge_call(edge, "return cb => edge.func('a\"b.cs')(1, cb)").json["message"]
    message = edge_call(edge, "return cb => edge.func('/tmp/none.csx')(1, cb)").json["message"]
    assert message.startswith("The C# source /tmp/none.csx cannot be read (ENOENT: ")
    assert "give the name of one that is there, or the source itself" in message


# --- what does not compile ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "line", "column", "words"),
    [
        (
            "return edge.func(function () {/*\n  async (dynamic x) => {\n    return y;\n  }\n*/})",
            4,
            12,
            "CS0103: The name `y'",
        ),
        (
            "return (context, cb) => {\n  edge.func(function () {/* async x => y */})(1, cb)\n}",
            3,
            40,
            "CS0103: The name `y'",
        ),
        ("\n\nreturn edge.func(function () {/*\n\n  using System.Nowhere;\n  async x => 1 */})", 6, 16, "CS0234"),
        ("return edge.func(function () {/*\n  public class Startup {\n    int Invoke( { }\n*/})", 4, 16, "CS1"),
        ("return edge.func(`\n  async x => z`)", 2, 14, "CS0103"),
        ("return edge.func({ source: function () {/*\n  async x => z\n*/}, references: [] })", 3, 14, "CS0103"),
        ("return edge.func({ references: [],\n  source() {/* async x => z */} })", 3, 27, "CS0103"),
        ("const own = f => edge.func(f);\nreturn own(\n  () => {/* async x => z */})", 4, 24, "CS0103"),
        ("return edge.func(function () {/*\n  async x => {\n*/})", 4, 1, "CS1525"),
        ("\n" * 40 + "return edge.func(function () {/*\n  async x => {\n*/})", 44, 1, "CS1525"),
    ],
)
def test_where_it_does_not_compile(edge: Runtime, code: str, line: int, column: int, words: str) -> None:
    answer = edge_call(edge, code)
    assert (answer.status, answer.json["reason"]) == (400, "compilation_failed"), answer
    assert answer.headers["x-sandpost-source"] == "compiler"
    body = answer.json
    assert body["message"].startswith("Compilation failed: CS")
    assert words in body["message"]
    assert (body["line"], body["column"]) == (line, column)


@pytest.mark.parametrize("kind", [JAVASCRIPT, TYPESCRIPT])
def test_where_it_does_not_compile_in_a_module(edge: Runtime, kind: str) -> None:
    typed = "interface Unused { a: 1 }" if kind == TYPESCRIPT else ""
    code = f"{typed}\nimport edge from 'edge';\nexport default edge.func({{ source: () => {{/*\n async x => z */}} }})"
    answer = edge.call(code, kind=kind)
    assert (answer.json["line"], answer.json["column"]) == (4, 13)
    code = code.replace("source:", "references: [],\n source:")
    answer = edge.call(code, kind=kind)
    assert (answer.json["line"], answer.json["column"]) == (5, 13)


def test_a_program_can_catch_what_does_not_compile(edge: Runtime) -> None:
    answer = edge_call(edge, "return cb => { try { edge.func('async x => y') } catch (e) { cb(null, e.message) } }")
    assert answer.json.startswith("CS0103")
    answer = edge_call(edge, "return cb => { try { edge.func('async x => y') } catch (e) { cb(e) } }")
    assert (answer.status, answer.json["reason"]) == (400, "compilation_failed")


def test_source_has_256_kib_at_most(edge: Runtime) -> None:
    answer = edge_call(edge, "return cb => edge.func('async x => 1 //' + 'x'.repeat(262144))(1, cb)")
    assert (
        answer.json["message"]
        == "Compilation failed: C# source has 256 KiB at most: put what is larger into an assembly"
    )


def test_source_that_breaks_the_compiler_is_told(edge: Runtime) -> None:
    deep = "edge.func('async x => ' + '('.repeat(60000) + '1' + ')'.repeat(60000))(1, cb)"
    answer = edge_call(edge, f"return cb => {deep}")
    assert (answer.status, answer.json["reason"]) == (400, "compilation_failed")
    assert edge_call(edge, "return cb => edge.func('async x => x')(1, cb)").body == b"1"


def test_names_in_unicode(edge: Runtime) -> None:
    answer = edge_call(
        edge, "return cb => edge.func(`async (dynamic größe) => { var 变量 = größe; return 变量 + \"ß😀\"; }`)('é', cb)"
    )
    assert answer.json == "éß😀"


# --- failures, and whose they are -----------------------------------------------------------------------------


def test_an_exception_is_the_callers_error(edge: Runtime) -> None:
    code = """return cb => edge.func(`async (input) => {
        try { throw new ArgumentException("inner"); }
        catch (Exception e) { throw new InvalidOperationException("outer", e); } }`)(1, (error) => {
          error.seen = [error instanceof Error, error.name, error.Message, error.InnerException.name, error.InnerException.message];
          console.log(JSON.stringify(error.seen)); cb(error); })"""
    answer = edge_call(edge, code)
    assert (answer.status, answer.json["reason"]) == (400, "script_error")
    assert answer.json["name"] == "System.InvalidOperationException"
    assert answer.json["message"] == "outer"
    assert "System.ArgumentException: inner" in answer.json["stack"]
    assert "at Startup" in answer.json["stack"]
    seen = '[true,"System.InvalidOperationException","outer","System.ArgumentException","inner"]'
    assert seen in [record.text for record in edge.records(lambda found: len(found) >= 2)]


def test_a_trace_has_the_programs_lines(edge: Runtime, clr: str) -> None:
    line = "" if clr == "mono" else "line "
    code = """return (context, cb) => {
      require('edge').func(function () {/*
        async (dynamic data) => {
          Func<int> fail = () => int.Parse("x");
          return fail();
        }
      */})(context.data, cb);
    };"""
    stack = edge_call(edge, code).json["stack"]
    # One line of the test's own stands before it.
    assert stack.count("in ./webtask.js:") == 2
    assert f"in ./webtask.js:{line}5" in stack
    assert f"in ./webtask.js:{line}6" in stack
    stack = edge_call(edge, "return cb => edge.func(`\n async x => {\n throw new Exception(); }`)(1, cb)").json["stack"]
    assert f"in ./webtask.cs:{line}3" in stack
    assert "/tmp" not in stack


THROWS = "function () {/*\n  async x => { throw new Exception(); }\n*/}"


def lines_of(runtime: Runtime, code: str, target: str = "/acme") -> list[str]:
    stack = runtime.call(code, target=target).json["stack"]
    return sorted(set(re.findall(r"in \./webtask\.js:(?:line )?(\d+)", stack)))


def test_a_trace_has_the_lines_of_the_program_that_runs(edge: Runtime) -> None:
    """Not those of another one with the same function, or of what stood there before an edit."""
    code = f"return cb => require('edge').func({THROWS})(1, cb)"
    assert lines_of(edge, code) == ["2"]
    assert lines_of(edge, "// An edit.\n\n" + code) == ["4"]
    assert lines_of(edge, code) == ["2"]


def test_functions_of_one_text_have_each_its_own_lines(edge: Runtime) -> None:
    code = f"""const edge = require('edge');
      return (context, cb) => context.data.first
        ? edge.func({THROWS})(1, cb)
        : edge.func({THROWS})(1, cb)"""
    for _ in range(2):
        assert lines_of(edge, code, "/acme?first=1") == ["4"]
        assert lines_of(edge, code) == ["7"]


def test_a_function_that_a_helper_is_given_has_its_own_lines(edge: Runtime) -> None:
    code = f"""const edge = require('edge');
      const run = source => edge.func({{ source, references: [] }});
      return cb => run(
        {THROWS})(1, cb)"""
    assert lines_of(edge, code) == ["5"]


def test_an_exception_is_thrown_where_no_callback_is(edge: Runtime) -> None:
    answer = edge_call(edge, "return cb => edge.func('async x => { throw new Exception(\"no\"); return 1; }')(1, true)")
    assert (answer.status, answer.json["message"]) == (500, "no")


def test_an_error_of_javascript_is_an_exception(edge: Runtime) -> None:
    code = """return cb => edge.func(`async (dynamic input) => {
          var f = (Func<object, Task<object>>)input;
          try { await f(null); return "no"; } catch (Exception e) { return e.Message; } }`)(KIND, cb)"""
    thrown = edge_call(edge, code.replace("KIND", "() => { throw new Error('sample') }"))
    assert thrown.json.startswith("Error: sample\n    at webtask.js:")
    called = edge_call(edge, code.replace("KIND", "(data, done) => { done('text'); done(null, 1); done() }"))
    assert called.json == "text"
    carried = edge_call(edge, code.replace("KIND", "(data, done) => done(null, 1n)"))
    assert "it is a BigInt" in carried.json


def test_a_callback_keeps_to_its_call(edge: Runtime) -> None:
    code = """const { AsyncLocalStorage } = require('async_hooks');
      const own = new AsyncLocalStorage();
      const wait = edge.func(`async (dynamic input) => { await Task.Delay(20); Console.WriteLine("in .NET");
        await ((Func<object, Task<object>>)input.tell)(1); return 2; }`);
      return (context, cb) => own.run(context.data.n, () => wait({ tell: (data, done) => {
        console.log('from .NET', own.getStore()); done(null, own.getStore()) } }, () => {
          console.log('back', own.getStore()); cb(null, own.getStore()); }))"""
    waiting = [edge.begin(EDGE + code, target=f"/acme?n={n}", req_id=f"req-{n}") for n in range(5)]
    for n, connection in enumerate(waiting):
        with connection:
            assert connection.answer().json == str(n)
    records = edge.records(lambda found: len(found) >= 15)
    for n in range(5):
        mine = [record.text for record in records if record.req_id == f"req-{n}"]
        assert mine == ["in .NET", f"from .NET {n}", f"back {n}"]


def test_a_call_that_is_over_keeps_nothing(edge: Runtime) -> None:
    code = """const { getHeapSpaceStatistics } = process.getBuiltinModule('v8');
      const old = () => getHeapSpaceStatistics().find(space => space.space_name === 'old_space').space_used_size;
      const same = edge.func('async x => x');
      return cb => {
        const call = () => {
          const before = old();
          for (let i = 0; i < 2000; i++) {
            const held = new Array(100).fill(i);
            same(i, (error, value) => { if (value !== held[99]) throw new Error('wrong'); });
          }
          return old() - before;
        };
        call();
        cb(null, call());
      };"""
    # What is held past its call is moved among what is collected seldom: 2 MB here.
    assert edge_call(edge, code).json < MiB // 4


def test_what_is_thrown_in_a_callback_is_its_calls(edge: Runtime) -> None:
    code = (
        "return cb => edge.func('async x => { await Task.Delay(5); return 1; }')(1, () => { throw new Error('late') })"
    )
    answer = edge_call(edge, code)
    assert (answer.status, answer.json["reason"], answer.json["message"]) == (500, "async_exception", "late")
    assert edge.probe().status == 204


def test_what_is_thrown_in_a_callback_at_once_is_its_calls(edge: Runtime) -> None:
    answer = edge_call(edge, "return cb => edge.func('async x => 1')(1, () => { throw new Error('soon') })")
    assert (answer.status, answer.json["reason"], answer.json["message"]) == (500, "async_exception", "soon")


def test_console_reaches_the_log(edge: Runtime) -> None:
    code = r"""return cb => edge.func(`async x => { Console.WriteLine("one {0}", 1); Console.Write("two"); Console.Write(" three\\n");
      Console.Error.WriteLine("bad"); Console.WriteLine(); Console.Write("no end"); return 1; }`)(1, cb)"""
    edge_call(edge, code)
    found = edge.records(lambda records: len(records) >= 5)
    assert [(record.level, record.text) for record in found] == [
        (30, "one 1"), (30, "two three"), (50, "bad"), (30, ""), (30, "no end"),
    ]  # fmt: skip
    assert {record.req_id for record in found} == {"req-1"}


def test_a_long_line_is_several_records(edge: Runtime) -> None:
    edge_call(
        edge,
        "return cb => edge.func('async x => { Console.WriteLine(new string((char)0x20ac, 5000)); return 1; }')(1, cb)",
    )
    found = edge.records(lambda records: sum(len(record.text) for record in records) >= 5000)
    assert "".join(record.text for record in found) == "€" * 5000


# --- ends -----------------------------------------------------------------------------------------------------


FAILS_ALONE = 'new System.Threading.Thread(() => { throw new Exception("alone"); }).Start()'


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("Environment.Exit(3)", 3, "Environment.Exit(3) ended the process."),
        (FAILS_ALONE, -6, "alone"),
        ("Func<int, int> f = null; f = i => f(i + 1) + 1; f(0)", None, ""),
        ('Environment.FailFast("fast")', -6, ""),
    ],
)
def test_an_end_that_net_brings_about(edge: Runtime, clr: str, code: str, status: int | None, words: str) -> None:
    # CoreCLR ends a process from a thread of its own, which is in nobody's call.
    req_id = "" if clr == "coreclr" and "Exit" in code else "req-1"
    source = f"async x => {{ {code}; await Task.Delay(5000); return 1; }}"
    with edge.begin(f"{EDGE}return cb => edge.func(`{source}`)(1, cb)"):
        ended = edge.process.wait(10)
    if status is None:
        assert ended < 0
    else:
        assert ended == status
    if words:
        (record,) = edge.records()
        assert words in record.text
        assert record.req_id == req_id


@pytest.mark.parametrize(
    ("clr", "code", "reason", "words"),
    [
        ("mono", "Environment.Exit(3)", "exit", "Environment.Exit(3) ended the process."),
        ("mono", "await Task.Delay(9); Environment.Exit(0)", "exit", "Environment.Exit(0) ended the process."),
        ("mono", FAILS_ALONE, "crash", "System.Exception: alone"),
        pytest.param("coreclr", FAILS_ALONE, "crash", "System.Exception: alone", marks=pytest.mark.long),
    ],
    indirect=["clr"],
)
def test_the_call_that_net_ends_the_process_for_is_named(edge: Runtime, code: str, reason: str, words: str) -> None:
    source = f"async (dynamic x) => {{ if (x.data.guilty == 'n') await Task.Delay(9000); {code}; await Task.Delay(9000); return 1; }}"
    program = f"{EDGE}return edge.func(`{source}`)".replace("'n'", '"n"')
    with contextlib.ExitStack() as stack:
        neighbours = [
            stack.enter_context(edge.begin(program, target="/acme?guilty=n", req_id=f"req-{n}")) for n in (1, 2)
        ]
        answer = edge.call(program, target="/acme?guilty=y", req_id="req-3")
        edge.process.wait(10)
        for neighbour in neighbours:
            with pytest.raises((h11.RemoteProtocolError, ConnectionError)):
                neighbour.answer()
    assert (answer.status, answer.headers["x-sandpost-end"], answer.json["reason"]) == (500, reason, reason)
    assert words in answer.json["message"]
    (record,) = edge.records()
    assert (record.level, record.req_id) == (50, "req-3")
    assert words in record.text


@pytest.mark.parametrize("clr", ["mono"], indirect=True)
def test_an_end_by_net_waits_for_javascript_only_a_moment(edge: Runtime) -> None:
    code = """return cb => { edge.func(`async x => { await Task.Delay(50); Environment.Exit(3); return 1; }`)(1, cb);
      const until = Date.now() + 5000; while (Date.now() < until); }"""
    with edge.begin(EDGE + code):
        began = time.monotonic()
        assert edge.process.wait(10) == 3
    assert time.monotonic() - began < 4
    assert [(record.req_id, record.text) for record in edge.records()] == [
        ("req-1", "Environment.Exit(3) ended the process.")
    ]


def test_a_task_that_fails_and_nobody_asks_for_is_a_record(edge: Runtime) -> None:
    code = """return cb => edge.func(`async x => { Task.Run(() => { throw new Exception("unasked"); }); await Task.Delay(50);
      for (var i = 0; i < 5; i++) { GC.Collect(); GC.WaitForPendingFinalizers(); } return 1; }`)(1, cb)"""
    assert edge_call(edge, code).body == b"1"
    assert any(
        "unasked" in record.text for record in edge.records(lambda found: any("unasked" in r.text for r in found))
    )


def test_children_of_both_sides_end(edge: Runtime) -> None:
    code = """const { execFile, spawnSync } = require('child_process');
      return (context, cb) => {
        const said = edge.func(`using System.Diagnostics; async x => {
          var start = new ProcessStartInfo("/bin/echo", "net") { UseShellExecute = false, RedirectStandardOutput = true };
          using (var child = Process.Start(start)) { child.WaitForExit(); return child.StandardOutput.ReadToEnd() + child.ExitCode; }
        }`);
        execFile('/bin/sh', ['-c', 'sleep 0.1; echo node'], (error, node) => {
          cb(error, [said(1, true), String(spawnSync('/bin/echo', ['at once']).stdout), node]);
        });
        said(1, true);
      }"""
    for _ in range(3):
        assert edge_call(edge, code).json == ["net\n0", "at once\n", "node\n"]


def test_faults_of_net_and_of_webassembly_are_each_their_own(edge: Runtime) -> None:
    # A function that reads where its argument says, and a memory of 64 KiB.
    code = """const code = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 6, 1, 96, 1, 127, 1, 127, 3, 2, 1, 0, 5, 3, 1, 0, 1, 7, 5, 1, 1, 102,
        0, 0, 10, 9, 1, 7, 0, 32, 0, 40, 2, 0, 11);
      const fault = edge.func(`async x => {
        try { object o = null; return o.ToString(); } catch (NullReferenceException) { return "of .NET"; } }`);
      return async (context, cb) => {
        const { instance } = await WebAssembly.instantiate(code);
        const seen = [fault(1, true)];
        try { instance.exports.f(1 << 30); } catch (error) { seen.push(error.message); }
        return [...seen, fault(1, true)];
      }"""
    for _ in range(2):
        assert edge_call(edge, code).json == ["of .NET", "memory access out of bounds", "of .NET"]


def test_an_exit_beside_busy_threads_has_its_status(edge: Runtime) -> None:
    code = """return cb => edge.func(`async x => {
        for (var i = 0; i < 4; i++) {
          new System.Threading.Thread(() => { for (var all = new List<object>(); ; all.Add(new byte[99])) if (all.Count > 999) all.Clear(); })
            { IsBackground = true }.Start();
        }
        return 1;
      }`)(1, () => setTimeout(() => process.exit(5), 30))"""
    answer = edge_call(edge, code)
    assert (answer.status, answer.json["reason"]) == (500, "exit")
    assert edge.process.wait(10) == 5


# --- what it costs --------------------------------------------------------------------------------------------


def test_a_source_is_compiled_once(edge: Runtime) -> None:
    code = """let spawned = 0;
      const children = require('child_process');
      return cb => {
        const before = require('fs').readdirSync('/tmp').length;
        const began = performance.now();
        for (let i = 0; i < 200; i++) edge.func('async x => x');
        cb(null, performance.now() - began);
      }"""
    edge_call(edge, code)
    assert edge_call(edge, code).json < 100


def test_a_program_without_csharp_pays_nothing(start_edge: StartRuntime, clr: str) -> None:
    library, memory = ("libmonosgen", 24 * MiB) if clr == "mono" else ("libcoreclr", 48 * MiB)
    plain = start_edge()
    assert edge_call(plain, "return cb => cb(null, typeof edge.func)").json == "function"
    with open(f"/proc/{plain.process.pid}/maps") as maps:
        assert re.search("mono|coreclr", maps.read()) is None
    before = plain.memory()
    assert edge_call(plain, "return cb => edge.func('async (dynamic x) => x + 1')(1, cb)").body == b"2"
    with open(f"/proc/{plain.process.pid}/maps") as maps:
        assert library in maps.read()
    # .NET's own, with what it made of the binder of `dynamic`.
    assert plain.memory() - before < memory

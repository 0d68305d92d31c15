"""Programs that are C# as a whole, and what of them goes on to the tenant's next sandbox."""

import contextlib
import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.runtime import CSHARP, Connection, Runtime, StartRuntime, code_hash

MiB = 1 << 20
CLASS = (
    "using System; using System.Threading.Tasks;\n"
    "public class Startup { int calls; public async Task<object> Invoke(dynamic context) { return ++calls; } }"
)
# How often the compiler is started from JavaScript.
COUNTED = """
const children = process.getBuiltinModule('child_process');
globalThis.compiled ??= 0;
const { execFile, spawnSync } = children;
children.spawnSync = (...given) => { compiled++; return spawnSync(...given); };
const edge = require('edge');
return (context, cb) => edge.func(`async (dynamic x) => x + "!"`)('ready', (error, value) => cb(error, [value, compiled]));
"""


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ('async (dynamic context) => "Hello, " + context.data.name', "Hello, Anna"),
        ("// sandpost: language=csharp\nasync (dynamic context) => { return context.data; }", {"name": "Anna"}),
        ("using System.Text;\n/* a comment */ async x => new StringBuilder(\"a\").Append('b').ToString()", "ab"),
        ('#r "System.Xml.Linq.dll"\nusing System.Xml.Linq;\nasync x => new XElement("a").ToString()', "<a />"),
        ("\ufeffasync x => 1", 1),
        (CLASS, 1),
    ],
)
def test_forms_of_a_program(edge: Runtime, code: str, result: object) -> None:
    answer = edge.call(code, kind=CSHARP, target="/acme?name=Anna")
    assert (answer.status, answer.json) == (200, result)


def test_a_class_is_made_once_for_a_program(edge: Runtime) -> None:
    assert [edge.call(CLASS, kind=CSHARP).json for _ in range(3)] == [1, 2, 3]


def test_static_fields_are_the_sources_and_others_an_instances(edge: Runtime) -> None:
    text = CLASS.replace("int calls;", "static int all; int calls;").replace("++calls", "new[] { ++all, ++calls }")
    assert [edge.call(text, kind=CSHARP).json for _ in range(2)] == [[1, 1], [2, 2]]
    assert edge.call(f"return require('edge').func(`{text}`)").json == [3, 1]
    assert edge.call(f"return require('edge').func(`{text}`) //").json == [4, 1]


@pytest.mark.parametrize(
    ("code", "line", "column", "words"),
    [
        ("async (dynamic x) => {\n  return y;\n}", 2, 10, "CS0103: The name `y'"),
        ("// sandpost: language=csharp\n\nusing System.Nowhere;\nasync x => 1", 3, 14, "CS0234"),
        ('public class Startup {\n  int a = "b";\n}', 2, 11, "CS0029"),
        ("class", 1, 6, "CS1001"),
        ("async x => {\n  return 1;", 2, 12, "CS1525"),
    ],
)
def test_where_it_does_not_compile(edge: Runtime, code: str, line: int, column: int, words: str) -> None:
    answer = edge.load(code, **{"content-type": CSHARP})
    assert (answer.status, answer.headers["x-sandpost-source"]) == (400, "compiler")
    body = answer.json
    assert words in body["message"]
    assert body["message"].endswith(f"(line {line}, column {column})")
    assert (body["reason"], body["line"], body["column"]) == ("compilation_failed", line, column)
    assert body["stack"].startswith(f"webtask.cs:{line}:{column}\n")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("public class Other { }", "The source has no class `Startup`"),
        ("public class Startup { }", "has no public method `Invoke`"),
        ("public class Startup { public int Invoke(object x) { return 1; } }", "must be Task<object> Invoke(object input)"),
        ("public class Startup { public Startup() { throw new System.Exception(); } public object Invoke(object x) { return 1; } }",
         "must be Task<object>"),
        (CLASS.replace("int calls;", 'int calls; public Startup() { throw new Exception("top"); }'), "top"),
    ],
)  # fmt: skip
def test_a_class_that_is_no_program_is_told(edge: Runtime, code: str, words: str) -> None:
    answer = edge.call(code, kind=CSHARP)
    assert (answer.status, answer.json["reason"]) == (400, "compilation_failed")
    assert words in answer.json["message"]


def test_a_program_that_fails_as_it_starts_has_its_line(edge: Runtime, clr: str) -> None:
    code = CLASS.replace("int calls;", '\n int calls; public Startup() {\n throw new Exception("top"); }')
    answer = edge.call(code, kind=CSHARP)
    assert (answer.status, answer.json["reason"], answer.json["line"]) == (400, "compilation_failed", 4)
    assert "column" not in answer.json
    assert ("in ./webtask.cs:4" if clr == "mono" else "in ./webtask.cs:line 4") in answer.json["stack"]


def large(classes: int, name: str = "C") -> str:
    """Return a program that takes the compiler some time: a second for a few thousand classes."""
    usings, program = CLASS.split("\n")
    many = [f"class {name}{n} {{ int a{n} = {n}; int F() {{ return a{n} * 2; }} }}" for n in range(classes)]
    return "\n".join([usings, *many, program])


def test_other_calls_are_served_meanwhile(edge: Runtime) -> None:
    assert edge.call("return cb => cb(null, 1)").body == b"1"
    slow = large(2500)
    loaded: list[int] = []
    thread = threading.Thread(target=lambda: loaded.append(edge.load(slow, **{"content-type": CSHARP}).status))
    thread.start()
    waits = []
    while thread.is_alive():
        began = time.monotonic()
        assert edge.call("return cb => cb(null, 1)").body == b"1"
        waits.append(time.monotonic() - began)
        time.sleep(0.01)
    thread.join()
    assert loaded == [204]
    assert len(waits) > 5
    # All but two: a busy machine may stop for a moment.
    assert sorted(waits)[-3] < 0.2


def compilers(runtime: Runtime) -> int:
    """Return how many compilers the runtime has running."""
    count = 0
    for task in Path(f"/proc/{runtime.process.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            with contextlib.suppress(OSError):
                count += b"mcs.exe" in Path(f"/proc/{child}/cmdline").read_bytes()
    return count


def test_programs_that_come_together_are_compiled_one_after_another(edge: Runtime) -> None:
    sources = [large(1, f"N{n}x") for n in range(8)]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(sources)) as pool:
        waiting = [stack.enter_context(edge.connect()) for _ in sources]
        for connection, source in zip(waiting, sources, strict=True):
            connection.sock.settimeout(60)
            begin_load(connection, source)
        answers = [pool.submit(connection.answer) for connection in waiting]
        seen = set()
        while not all(answer.done() for answer in answers):
            seen.add(compilers(edge))
            time.sleep(0.002)
    assert [answer.result().status for answer in answers] == [204] * 8
    assert seen == {0, 1}


# How many compilers were started for programs.
STARTED = """
const children = process.getBuiltinModule('child_process');
if (globalThis.started === undefined) {
  const { execFile } = children;
  globalThis.started = 0;
  children.execFile = (...given) => { started++; return execFile(...given); };
}
return cb => cb(null, String(started));
"""


def test_one_program_that_comes_several_times_at_once_is_compiled_once(edge: Runtime) -> None:
    assert edge.call(STARTED).json == "0"
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(edge.load, large(500), **{"content-type": CSHARP}) for _ in range(4)]
    assert [load.result().status for load in loads] == [204] * 4
    assert edge.call(STARTED).json == "1"


def test_a_program_that_nobody_waits_for_is_not_compiled(edge: Runtime) -> None:
    assert edge.call(STARTED).json == "0"
    with edge.connect() as first:
        begin_load(first, large(1500))
        with edge.connect() as gone:
            begin_load(gone, large(1, "Gone"))
            # It has been read when what came behind it was answered.
            assert edge.call(STARTED).json == "1"
        assert edge.load(large(1, "Kept"), **{"content-type": CSHARP}).status == 204
        assert first.answer().status == 204
    assert edge.call(STARTED).json == "2"


def begin_load(connection: Connection, code: str) -> None:
    lines = {"x-sandpost-op": "load", "x-sandpost-code": code_hash(code), "content-type": CSHARP}
    connection.send("PUT", "/", lines, code.encode())


@pytest.mark.long
@pytest.mark.parametrize("clr", ["mono"], indirect=True)
@pytest.mark.timeout(600)
def test_after_many_sources_another_sandbox_is_asked_for(edge: Runtime) -> None:
    code = """const edge = require('edge');
      return (context, cb) => {
        for (let i = 0; i < 10; i++) edge.func(`async x => ${context.data.n} + ${i}`);
        cb(null, 1);
      }"""
    # Each is compiled: a tenth of a second, and several on a busy machine.
    asked = ["x-sandpost-replace" in edge.call(code, target=f"/acme?n={1000 * n}").headers for n in range(53)]
    assert asked == [False] * 51 + [True] * 2


# --- to the next sandbox --------------------------------------------------------------------------------------


def fetch(runtime: Runtime, code: str, kind: str = "application/javascript") -> bytes:
    key = code_hash(code if kind == "application/javascript" else f"{kind}\0{code}")
    answer = runtime.request("GET", "/", {"x-sandpost-op": "made", "x-sandpost-code": key})
    assert answer.status == 200
    return answer.body


def load_with(runtime: Runtime, code: str, made: bytes, kind: str = "application/javascript") -> None:
    key = code_hash(code if kind == "application/javascript" else f"{kind}\0{code}")
    lines = {"x-sandpost-op": "load", "x-sandpost-code": key, "content-type": kind, "x-sandpost-made": str(len(made))}
    assert runtime.request("PUT", "/", lines, code.encode() + made).status == 204


def test_an_assembly_goes_on_to_the_next_sandbox(start_edge: StartRuntime) -> None:
    first, second, third = start_edge(), start_edge(), start_edge()
    answer = first.call(COUNTED)
    assert answer.json == ["ready!", 1]
    assert answer.headers["x-sandpost-made"] == "1"
    made = fetch(first, COUNTED)
    assert 36 < len(made) < 16384
    assert int.from_bytes(made[32:36], "big") == len(made) - 36
    # Handed out once.
    assert fetch(first, COUNTED) == b""
    assert "x-sandpost-made" not in first.call(COUNTED).headers
    load_with(second, COUNTED, made)
    answer = second.call(COUNTED)
    assert (answer.json, "x-sandpost-made" in answer.headers) == (["ready!", 0], False)
    # Without it the source is compiled.
    assert third.call(COUNTED).json == ["ready!", 1]


def test_an_assembly_of_a_whole_program_goes_on_too(start_edge: StartRuntime) -> None:
    first, second = start_edge(), start_edge()
    key = code_hash(f"{CSHARP}\0{CLASS}")
    assert first.load(CLASS, **{"content-type": CSHARP, "x-sandpost-code": key}).headers["x-sandpost-made"] == "1"
    load_with(second, CLASS, fetch(first, CLASS, CSHARP), CSHARP)
    # Nothing was compiled for it.
    assert fetch(second, CLASS, CSHARP) == b""
    assert second.call(CLASS, kind=CSHARP).json == 1


def test_lines_go_on_with_the_assembly(start_edge: StartRuntime, clr: str) -> None:
    first, second = start_edge(), start_edge()
    code = "async (dynamic context) => {\n  throw new Exception(); }"
    key = code_hash(f"{CSHARP}\0{code}")
    assert first.load(code, **{"content-type": CSHARP, "x-sandpost-code": key}).status == 204
    load_with(second, code, fetch(first, code, CSHARP), CSHARP)
    answer = second.call(code, kind=CSHARP)
    assert ("in ./webtask.cs:2" if clr == "mono" else "in ./webtask.cs:line 2") in answer.json["stack"]


@pytest.mark.parametrize(
    "made",
    [
        b"x", b"x" * 36, b"x" * 32 + b"\xff\xff\xff\xff" + b"y" * 50, b"x" * 32 + b"\0\0\0\1" + b"y" * 50, b"\0" * 100,
        hashlib.sha256(b"").digest() + b"\0\0\0\4" + b"junk",
    ],
)  # fmt: skip
def test_what_is_no_record_is_left_out(edge: Runtime, made: bytes) -> None:
    load_with(edge, COUNTED, made)
    assert edge.call(COUNTED).json == ["ready!", 1]


def test_an_assembly_that_is_none_is_the_programs_own_error(start_edge: StartRuntime) -> None:
    first, second = start_edge(), start_edge()
    first.call(COUNTED)
    made = fetch(first, COUNTED)
    load_with(second, COUNTED, made[:36] + b"\0" * (len(made) - 36))
    answer = second.call(COUNTED)
    assert (answer.status, answer.json["name"]) == (500, "System.BadImageFormatException")
    assert second.probe().status == 204


@pytest.mark.parametrize("clr", ["coreclr"], indirect=True)
@pytest.mark.parametrize("at", [0, 8, 100, -1])
def test_symbols_that_are_none_cost_the_lines_alone(start_edge: StartRuntime, at: int) -> None:
    """Their header, its numbers, or what these lead to is spoiled, or their end is missing."""
    first, second = start_edge(), start_edge()
    code = "async (dynamic context) => {\n  throw new Exception(); }"
    key = code_hash(f"{CSHARP}\0{code}")
    assert first.load(code, **{"content-type": CSHARP, "x-sandpost-code": key}).status == 204
    made = fetch(first, code, CSHARP)
    length = int.from_bytes(made[-4:], "little")
    start = len(made) - 4 - length
    symbols = made[start:-4]
    symbols = symbols[:-40] if at < 0 else symbols[:at] + b"\0" * 100 + symbols[at + 100 :]
    body = made[36:start] + symbols + len(symbols).to_bytes(4, "little")
    load_with(second, code, made[:32] + len(body).to_bytes(4, "big") + body, CSHARP)
    answer = second.call(code, kind=CSHARP)
    assert (answer.status, answer.json["name"]) == (400, "System.Exception")
    assert "webtask.cs:line" not in answer.json["stack"]
    assert second.probe().status == 204


def test_made_of_a_program_that_is_not_loaded(edge: Runtime) -> None:
    answer = edge.request("GET", "/", {"x-sandpost-op": "made", "x-sandpost-code": "0" * 64})
    assert (answer.status, answer.headers["x-sandpost-unknown"]) == (404, "1")


# --- without CoreCLR ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clr", ["mono"], indirect=True)
def test_a_program_that_wants_coreclr_is_told_where_there_is_none(edge: Runtime) -> None:
    code = "return cb => require('edge').func('async x => 1')(1, cb)"
    wants = edge.call("process.env.EDGE_USE_CORECLR = '1';\n" + code)
    assert (wants.status, wants.json["reason"], wants.json["code"]) == (400, "script_error", 400)
    assert "`image.coreclr`" in wants.json["message"]
    # Whoever does not want it has Mono, in that process too.
    assert edge.call("delete process.env.EDGE_USE_CORECLR;\n" + code).body == b"1"
    # From then on the process has its .NET.
    assert edge.call("process.env.EDGE_USE_CORECLR = '1';\n" + code.replace("x => 1", "x => 2")).body == b"2"


# --- what CoreCLR starts with ---------------------------------------------------------------------------------


@pytest.mark.parametrize("clr", ["coreclr"], indirect=True)
def test_an_environment_of_the_programs_own_is_no_hindrance(start_edge: StartRuntime) -> None:
    runtime = start_edge({"EDGE_USE_CORECLR": ""})
    code = """process.env = { ...process.env, EDGE_USE_CORECLR: '1', PATH: '' };
      return cb => require('edge').func('async x => Environment.Version.ToString()')(1, cb)"""
    assert runtime.call(code).json == "8.0.4"


@pytest.mark.parametrize("clr", ["coreclr"], indirect=True)
def test_what_it_is_started_with_is_not_left_to_others(edge: Runtime) -> None:
    code = """const before = JSON.stringify(Object.keys(process.env).sort());
      return cb => require('edge').func('async x => 1')(1, () => cb(null, [JSON.parse(before), Object.keys(process.env).sort()]))"""
    before, after = edge.call(code).json
    assert set(after) - set(before) == {"EDGE_CS_NATIVE"}
    assert set(before) - set(after) == set()


@pytest.mark.parametrize("clr", ["coreclr"], indirect=True)
def test_where_it_cannot_start_another_sandbox_is_asked_for(start_edge: StartRuntime, tmp_path: Path) -> None:
    place = tmp_path / "0" / "upper" / "opt/sandpost/edge/node_modules/edge-js/lib/bootstrap/bin/Release"
    place.mkdir(parents=True)
    (place / "bootstrap.deps.json").write_text("{")
    runtime = start_edge()
    for _ in range(2):
        answer = runtime.call("return cb => require('edge').func('async x => 1')(1, cb)")
        assert "CoreCLR could not start" in answer.json["message"], answer
        assert "x-sandpost-replace" in answer.headers

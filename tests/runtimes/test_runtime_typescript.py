"""TypeScript: types go, places stay, and what the compiler cannot do is told."""

from pathlib import Path

import pytest

from support.runtime import TYPESCRIPT, Answer, Runtime, StartRuntime

MiB = 1 << 20


def call(runtime: Runtime, code: str) -> Answer:
    return runtime.call(code, kind=TYPESCRIPT)


@pytest.mark.parametrize("kind", ["application/typescript", "text/typescript", "Application/TypeScript; charset=utf-8"])
def test_types_of_typescript(runtime: Runtime, kind: str) -> None:
    assert runtime.call("return (cb: Function): void => cb(null, 1 as number)", kind=kind).body == b"1"


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (
            "import type { A } from './nowhere';\nconst a = 5 satisfies number;\nexport default (cb: any) => cb(null, a!)",
            5,
        ),
        (
            "type F<T> = (a: T) => T;\nconst f: F<number> = <T,>(a: T) => a;\nexport default (cb: any) => cb(null, f(6))",
            6,
        ),
        ("enum A { X = 5, Y }\nreturn (cb: any): void => cb(null, A.Y)", 6),
        ("namespace N { export const a = 3 }\nexport default (cb: any) => cb(null, N.a)", 3),
        (
            "class P { constructor(private a: number) {} get() { return this.a } }\nmodule.exports = (cb: any) => cb(null, new P(7).get())",
            7,
        ),
        ("import path = require('path');\nexport = (cb: any) => cb(null, path.join('a', 'b'))", "a/b"),
        ("const a = await Promise.resolve<number>(8);\nexport default (cb: any) => cb(null, a)", 8),
        ("return (cb: any) => cb(null, <number>9)", 9),
        ("return (cb: any) => cb(null, 10) // }", 10),
        ("\ufeffreturn (cb: any) => cb(null, 11)", 11),
        ("return cb => cb(null, 12)", 12),
    ],
)
def test_what_typescript_becomes(runtime: Runtime, code: str, result: object) -> None:
    assert call(runtime, code).json == result


@pytest.mark.parametrize(
    ("code", "line", "column", "message"),
    [
        ("let x: number = ;\nreturn 1", 1, 17, "Expression expected"),
        ("return (cb: any) => {\n\n\tfoo bar\n}", 3, 6, "Expected ';', '}' or <eof>"),
        ("export default (cb: any) => {\n 'ä日本\U0001f600'; foo bar }", 2, 15, "Expected ';', '}' or <eof>"),
        (
            "export default (cb: any) => {\n 'e\u0301\u200b\U0001f468\u200d\U0001d49c\U00020bb7'; foo bar }",
            2,
            20,
            "Expected ';', '}' or <eof>",
        ),
        ("return (cb: any) => {", 1, 22, "Expected '}', got '<eof>'"),
        ("export default (cb: any) => {\n\n", 3, 1, "Expected '}', got '<eof>'"),
        # What V8 alone refuses.
        ("let a: number = 1;\nlet a: number = 2;\nexport default 1", 2, 5, "Identifier 'a' has already been declared"),
        ("enum Q { A }\nlet a: number = 1;\n\n  let a: number = 2;", 4, 7, "Identifier 'a' has already been declared"),
        ("}; function other() {", 1, 1, "Unexpected token '}'"),
        ("x" * 3000 + ": number y", 1, 3010, "Expected ';', '}' or <eof>"),
    ],
)
def test_where_it_does_not_compile(runtime: Runtime, code: str, line: int, column: int, message: str) -> None:
    answer = runtime.load(code, **{"content-type": TYPESCRIPT})
    assert (answer.status, answer.headers["x-sandpost-source"]) == (400, "compiler")
    body = answer.json
    assert body["message"] == f"Compilation failed: {message} (line {line}, column {column})"
    assert (body["line"], body["column"], body["name"]) == (line, column, "SyntaxError")
    assert body["stack"].startswith("webtask.ts:")


def test_places_of_a_program_that_was_rewritten_are_the_authors_everywhere(runtime: Runtime) -> None:
    code = """interface I {
      a: number
    }
    enum A { B }
    function fail(a: any) {
      return a.x;
    }
    return function (cb: any) {
      console.log(new Error('logged'));
      console.trace('here');
      setTimeout(() => fail(null), 1);
    }"""
    stack = call(runtime, code).json["stack"]
    assert "at fail (webtask.ts:6:16)" in stack
    assert "(webtask.ts:11:24)" in stack
    logged, traced, failed = runtime.records(lambda found: len(found) >= 3)
    assert "webtask.ts:9:19" in logged.text
    assert "webtask.ts:10:15" in traced.text
    assert "webtask.ts:6:16" in failed.text


def test_places_of_two_rewritten_programs_are_not_mixed_up(runtime: Runtime) -> None:
    one = "enum A { B }\nreturn (cb: any) => { null!.x }"
    two = "enum A { B }\n\n\n\nreturn (cb: any) => { null!.x }"
    for _ in range(2):
        assert "webtask.ts:2:" in call(runtime, one).json["stack"]
        assert "webtask.ts:5:" in call(runtime, two).json["stack"]


@pytest.mark.parametrize("place", ["/etc/passwd", "http://127.0.0.1:9/x.map", "data:application/json;base64,e30="])
@pytest.mark.parametrize("before", ["", "enum A { B }"])
def test_a_source_map_that_a_program_names_is_a_comment(runtime: Runtime, place: str, before: str) -> None:
    code = f"{before}\nexport default (cb: any) => {{ null!.x }}\n//# sourceMappingURL={place}"
    stack = call(runtime, code).json["stack"]
    assert "webtask.ts:2:" in stack
    script = f"return cb => {{\n null.x }}\n//# sourceMappingURL={place}"
    assert "webtask.js:2:" in runtime.call(script).json["stack"]


def test_the_same_bytes_in_two_languages_are_two_programs(runtime: Runtime) -> None:
    code = "const f = <T,>(a: T) => a; return (cb: any) => cb(null, f(1))"
    assert call(runtime, code).body == b"1"
    assert runtime.load(code).json["reason"] == "compilation_failed"


def test_a_program_of_a_megabyte(runtime: Runtime) -> None:
    code = "".join(f"const a{n}: number = {n};\n" for n in range(35_600)) + "return (cb: any) => cb(null, a35599)"
    assert len(code) > 0.99 * MiB
    assert call(runtime, code).body == b"35599"
    # What the compiler took for it, three times the program's length and more, is given back.
    assert runtime.memory() < 45 * MiB


@pytest.mark.parametrize("name", ["größe", "变量", "\\u0061b", "\U00020bb7"])
def test_names_in_unicode(runtime: Runtime, name: str) -> None:
    assert call(runtime, f"const {name}: number = 1;\nreturn (cb: any) => cb(null, {name})").body == b"1"


def test_a_compiler_that_broke_is_loaded_anew(runtime: Runtime) -> None:
    before = 0
    for number in range(1, 13):
        deep = f"return (cb: any) => cb({number}, " + "(" * 20_000 + "1" + ")" * 20_000 + ")"
        answer = runtime.load(deep, **{"content-type": TYPESCRIPT})
        assert (answer.status, answer.json["reason"]) == (400, "compilation_failed")
        assert answer.json["message"].endswith(
            "The TypeScript compiler failed at this program: is something nested too deeply?"
        )
        assert "x-sandpost-replace" not in answer.headers
        assert call(runtime, f"enum A {{ B = {number} }}\nreturn (cb: any) => cb(null, A.B)").json == number
        if number == 3:
            before = runtime.memory()
    # What broke is collected.
    assert runtime.memory() - before < 16 * MiB


def test_javascript_alone_pays_nothing_for_typescript(start_runtime: StartRuntime) -> None:
    plain, typed = start_runtime(), start_runtime()
    for n in range(20):
        assert plain.call(f"return cb => cb(null, {n + 1})").status == 200
        assert typed.call(f"return cb => cb(null, {n + 1})").status == 200
    before = typed.memory()
    assert call(typed, "return (cb: any) => cb(null, 1)").body == b"1"
    assert "/amaro/compiler.node\n" in Path(f"/proc/{typed.process.pid}/maps").read_text()
    assert "amaro" not in Path(f"/proc/{plain.process.pid}/maps").read_text()
    # All sandboxes share its code: what is a sandbox's own is little.
    assert typed.memory() - before < 3 * MiB
    assert plain.memory() < before + 2 * MiB


def test_maps_of_unloaded_programs_go_with_them(start_runtime: StartRuntime) -> None:
    runtime = start_runtime({"SANDPOST_PROGRAMS": "4"})

    def run(n: int) -> None:
        filler = "\n".join(f"const a{k}: number = {k};" for k in range(1000))
        code = f"enum A {{ B = {n} }}\n{filler}\nreturn (cb: any) => cb(null, A.B + 1)"
        assert call(runtime, code).body == b"%d" % (n + 1)

    for n in range(200):
        run(n)
    before = runtime.memory()
    for n in range(200, 400):
        run(n)
    # Kept, they were 200 times 60 KiB of maps and text.
    assert runtime.memory() - before < 8 * MiB

"""The compiler of TypeScript as it is put into the root."""

import base64
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from bench.running import image_root

from sandpost.image import recipe, translation, typescript
from sandpost.model.errors import HostUnfit

WASM = b"\0asm\1\0\0\0" + bytes(range(256)) * 8
BYTES = f'var bytes = Buffer2.from("{base64.b64encode(WASM).decode()}", "base64");'
EMBEDDED = f"{BYTES}\nvar wasmModule = new WebAssembly.Module(bytes);\nwasm = wasmInstance.exports;"


def test_webassembly_is_taken_out_of_the_module() -> None:
    text, wasm = typescript.split(f"before();\n{EMBEDDED}\nafter();\n")
    assert wasm == WASM
    assert text == 'before();\nwasm = instantiate(imports["__wbindgen_placeholder__"]);\nafter();\n'


@pytest.mark.parametrize(
    "text", ["", "var bytes = load();", BYTES, EMBEDDED * 2, EMBEDDED.replace("Buffer2", "MyBuffer2")]
)
def test_a_module_that_is_made_in_another_way_is_told(text: str) -> None:
    with pytest.raises(HostUnfit, match="another way than before: build with the pinned one"):
        typescript.split(text)


def test_webassembly_that_is_cut_off_is_told() -> None:
    with pytest.raises(HostUnfit, match="is not base64"):
        typescript.split(EMBEDDED.replace('", "base64"', '0", "base64"'))


FUNCTIONS = [
    f"static u32 w2c_f{n}(Z_typescript_instance_t* instance, u32 w2c_p0) {{\n  FUNC_PROLOGUE;\n  return w2c_p0 + {n}u;\n}}\n\n"
    for n in range(40)
]
FRAME = "  w2c_i0 = instance->w2c_g0;\n  w2c_i1 = 48u;\n  w2c_i0 -= w2c_i1;\n  instance->w2c_g0 = w2c_i0;\n"
SOURCE = (
    '#include "compiler.h"\n#define FUNC_PROLOGUE\n'
    "static bool s_module_initialized = false;\n\nstatic u32 func_types[2];\n\n"
    + "".join(f"static u32 w2c_f{n}(Z_typescript_instance_t*, u32);\n" for n in range(40))
    + "\nstatic void init_globals(Z_typescript_instance_t* instance) {\n  instance->w2c_g0 = 2097152u;\n}\n\n"
    + f"static void w2c_frame(Z_typescript_instance_t* instance) {{\n{FRAME}}}\n\n"
    + "".join(FUNCTIONS)
    + "/* export: 'memory' */\nlast();\n/* export: 'transformSync' */\nlast();\n"
)


def test_the_translated_compiler_is_cut_between_its_functions() -> None:
    first, *parts = translation.parts(SOURCE, 4)
    assert len(parts) == 4
    whole = "".join(parts)
    for function in FUNCTIONS:
        # Callable from other files.
        assert whole.count(function.removeprefix("static ")) == 1
        assert function not in whole
    lengths = [len(part) for part in parts]
    assert max(lengths) < 1.3 * min(lengths)
    for part in parts:
        assert "extern u32 func_types[2];" in part
        assert part.count("u32 w2c_f7(Z_typescript_instance_t*, u32);") == 1
        assert part.index("#define FUNC_PROLOGUE STACK_CHECK") < part.index("instance, u32 w2c_p0")
    assert "\nu32 func_types[2];" in first
    assert first.endswith("/* export: 'memory' */\nlast();\n/* export: 'transformSync' */\nlast();\n")
    assert "w2c_p0" not in first


@pytest.mark.parametrize(
    "text",
    [
        "",
        SOURCE.replace("static u32 func_types", "static u64 func_types"),
        SOURCE.replace("s_module_initialized", "initialized"),
        SOURCE.replace("(Z_typescript_instance_t*", "(w2c_typescript*"),
        SOURCE.replace("/* export: ", "/* exported: "),
        # A second global that is written; no stack; a frame that the check of the stack does not know of.
        SOURCE.replace(FRAME, f"{FRAME}  instance->w2c_g1 = w2c_i0;\n"),
        SOURCE.replace("w2c_i0 -= w2c_i1", "w2c_i0 -= w2c_i2"),
        SOURCE.replace("w2c_i1 = 48u", "w2c_i1 = 65536u"),
    ],
)
def test_a_translation_of_another_form_is_told(text: str) -> None:
    with pytest.raises(HostUnfit, match="another way than that of Debian 12"):
        translation.parts(text, 4)


IMPORTED = "struct Z___wbindgen_placeholder___instance_t*"
HEADER = f"""
/* import: '__wbindgen_placeholder__' '__wbindgen_number_new' */
u32 Z___wbindgen_placeholder__Z___wbindgen_number_new({IMPORTED}, f64);
u32 Z___wbindgen_placeholder__Z___wbindgen_bigint_from_i64({IMPORTED}, u64);
void Z___wbindgen_placeholder__Z___wbindgen_throw({IMPORTED}, u32, u32);
u32 Z___wbindgen_placeholder__Z_none({IMPORTED});
wasm_rt_memory_t* Z_typescriptZ_memory(Z_typescript_instance_t* instance);
void Z_typescriptZ_transformSync(Z_typescript_instance_t*, u32, u32, u32);
u32 Z_typescriptZ_allocate(Z_typescript_instance_t*, u32);
"""


def test_imports_call_javascript_and_exports_are_called() -> None:
    made = re.sub(r"\s+", " ", translation.bindings(HEADER))
    assert f"number_new({IMPORTED} host, f64 a0) {{ const napi_value given[] = {{from_f64(a0)}};" in made
    assert 'return to_u32(import("__wbindgen_number_new", 1, given)); }' in made
    assert "{from_u64(a0)}" in made
    assert '{from_u32(a0), from_u32(a1)}; import("__wbindgen_throw", 2, given); }' in made
    assert 'given[] = {NULL}; return to_u32(import("none", 0, given)); }' in made
    called = "Z_typescriptZ_transformSync(of, to_u32(given[0]), to_u32(given[1]), to_u32(given[2]))"
    assert f"{{ {called}; return NULL; }}" in made
    assert "{ return from_u32(Z_typescriptZ_allocate(of, to_u32(given[0]))); }" in made
    assert made.endswith('EXPORTS[] = { {"transformSync", call_transformSync}, {"allocate", call_allocate}, }; ')


@pytest.mark.parametrize(
    "text", ["", HEADER.replace("transformSync", "other"), HEADER.replace("__wbindgen_placeholder__", "env")]
)
def test_a_header_of_another_form_is_told(text: str) -> None:
    with pytest.raises(HostUnfit, match=r"another way than that of Debian 12 does \(header\)"):
        translation.bindings(text)


@pytest.mark.parametrize(
    "text",
    [
        HEADER.replace("f64", "f32"),
        HEADER.replace("u32 Z___wbindgen_placeholder__Z_none", "f64 Z___wbindgen_placeholder__Z_none"),
        HEADER.replace("u32 Z_typescriptZ_allocate", "u64 Z_typescriptZ_allocate"),
    ],
)
def test_a_type_that_has_no_way_between_c_and_javascript_is_told(text: str) -> None:
    with pytest.raises(HostUnfit, match=r"another way than that of Debian 12 does \(types\)"):
        translation.bindings(text)


IN_ROOT = """
const { readFileSync } = require('node:fs');
const { stripTypeScriptTypes } = require('node:module');
const { compileFunction } = require('node:vm');
process.emitWarning = () => {};
const addon = { exports: {} };
process.dlopen(addon, '/usr/local/lib/amaro/compiler.node');
const { end, instantiate } = addon.exports;
const text = readFileSync('/usr/local/lib/amaro/index.js', 'utf8');
function load() {
  const made = { exports: {} };
  compileFunction(text, ['module', 'require', 'instantiate'])(made, require, instantiate);
  return made.exports.transformSync;
}
let transform = load();
const MODES = { strip: 'strip-only', transform: 'transform' };
function ours(source, mode) {
  try {
    return transform(source, { mode: MODES[mode], sourceMap: false, filename: '' }).code;
  } catch (error) {
    if (Number.isInteger(error.startLine)) return { said: error.message };
    end();
    transform = load();
    return 'broke';
  }
}
function nodes(source, mode) {
  try {
    return stripTypeScriptTypes(source, { mode });
  } catch (error) {
    return error instanceof SyntaxError ? { said: error.message } : 'broke';
  }
}
const found = JSON.parse(readFileSync(0, 'utf8')).flatMap((source) => Object.keys(MODES).map(
  (mode) => [ours(source, mode), nodes(source, mode)],
));
console.log(JSON.stringify({ version: process.versions.amaro, found }));
"""


def _compiled_by_both(texts: list[str]) -> tuple[str, list[tuple[object, object]]]:
    """Return the version of Node's compiler, and what ours and Node's make of each text, stripped and transformed."""
    command = ["chroot", "--userspec=1000:1000", image_root(), "/usr/local/bin/node", "-e", IN_ROOT]
    said = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, timeout=60, check=True)
    known = json.loads(said.stdout)
    return known["version"], [(one, other) for one, other in known["found"]]


TEXTS = [
    "",
    "let a: number = 1 as any; // \u00e4\u65e5\U0001f600",
    "enum A { B = 1, C = 'x' } namespace N { export const a: A = A.B }",
    "class P<T> { constructor(private readonly a: T, public b?: string) {} declare c: number; get(): T { return this.a! } }",
    "import type { A } from 'a'; import { type B, C } from 'b'; export type { A }; export { C }",
    "import fs = require('fs'); export = fs;",
    "abstract class Q implements R { abstract f(): void; protected override g<T extends keyof Q>(a: T): asserts a is T {} }",
    "const f = async <T,>(a: T, ...b: unknown[]): Promise<T> => { for await (const c of b as any) { yield; } return a };",
    "type X<T> = T extends (infer U extends string)[] ? { [K in keyof U as `get${K}`]?: U[K] } : never; let x: X<'a'>;",
    "function f(this: Window, a?: number): a is 5; function f(a: any) { return a satisfies number }",
    "label: for (let i: number = 0n; i < 10; i++) { switch (<any>i) { case 1: break label; default: debugger } }",
    "let a = `${(b as string)}${`${c!}`}`, d = /[/]\\/(?<e>.)/dgimsuvy, { f = 1 as number, ...g }: any = {};",
    "@decorator class A { @field a: number }",
    "let x: = 1",
    "let x = 'not ended",
    "return 1",
    "await 1; using a = b;",
    "\ufeff#!/usr/bin/env node\nlet a: string;",
    "a<b>(c); d?.[e]!.f ?? g!; new H<I>; j = <K>l;",
    "declare global { interface A {} } declare module 'm' { const a: number } export as namespace N;",
    # Memory grows while it runs.
    "".join(f"const a{n}: number = {n}; // \u65e5\n" for n in range(40_000)),
]


def test_it_makes_the_same_of_a_text_as_the_one_that_node_has() -> None:
    version, found = _compiled_by_both(TEXTS)
    assert f"amaro@{version}" == recipe.AMARO.name
    for (one, other), text in zip(found, (text for text in TEXTS for _ in ("strip", "transform")), strict=True):
        if isinstance(other, dict):
            assert isinstance(one, dict), text[:200]
            assert one["said"] in other["said"], text[:200]
        else:
            assert one == other, text[:200]


def test_what_is_nested_too_deeply_ends_a_compiler_and_not_the_process() -> None:
    before = "enum A { B } let a: number = 1;"
    # What takes of the one stack, and what takes of the other.
    deep = ["x = " + "(" * 20_000, "let a: " + "A<" * 20_000, "namespace A {" * 20_000, "x = " + "!" * 100_000]
    _, found = _compiled_by_both([before, *deep, before])
    ours = [one for one, _ in found]
    assert ours[2:-2] == ["broke"] * 8
    assert ours[-2:] == ours[:2]
    assert "broke" not in ours[:2]


def test_its_licences_lie_beside_it() -> None:
    folder = Path(image_root(), recipe.AMARO_FOLDER)
    assert set(os.listdir(folder)) == {"LICENSE.md", "dist-LICENSE", "index.js", "compiler.node"}

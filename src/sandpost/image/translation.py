"""What wasm2c makes of the compiler of TypeScript, as it is compiled: in parts, and bound to JavaScript. Pure.

One file of 34 MB takes one compiler of C minutes and 2 GB. Its functions are independent of one another.
"""

import re

from sandpost.model.errors import HostUnfit

MODULE = "typescript"
"""The name that wasm2c is to give: `Z_typescript_..`."""
HEADER = "compiler.h"
"""The file that wasm2c writes its header to."""

_DECLARATION = re.compile(r"^static \w+ w2c_\w+\(Z_typescript_instance_t\*[^\n]*\);\n", re.MULTILINE)
_FUNCTION = re.compile(r"^(?=static \w+ w2c_\w+\(Z_typescript_instance_t\* instance[^\n]*\) \{\n)", re.MULTILINE)
_OWN = re.compile(r"^static (?=\w+ w2c_)", re.MULTILINE)
_STATE = "static bool s_module_initialized"
_TYPES = re.compile(r"^static (u32 func_types\[\d+\];)$", re.MULTILINE)
_GLOBALS = "static void init_globals("
_EXPORTS = "/* export: "
_STACK_POINTER = re.compile(r"\binstance->w2c_g(\d+) = \w")
_FRAME = re.compile(r"\bw2c_i0 = instance->w2c_g0;\n\s*w2c_i1 = (\d+)u;\n\s*w2c_i0 -= w2c_i1;")
_FRAME_MOST = 8192
"""Bytes that one function may take of the stack in WebAssembly's memory (`addon.h`)."""

_IMPORT = re.compile(r"^(\w+) (Z___wbindgen_placeholder__Z_(\w+))\((struct \w+\*)([^)]*)\);$", re.MULTILINE)
_EXPORT = re.compile(r"^(\w+) (Z_typescriptZ_(\w+))\(Z_typescript_instance_t\*([^)]*)\);$", re.MULTILINE)
_FROM = {"u32": "from_u32", "u64": "from_u64", "f64": "from_f64"}
"""C's types of what goes to JavaScript, and the functions of `addon.c` that take them there."""


def parts(source: str, count: int) -> list[str]:
    """Cut wasm2c's C into `count` files of functions, and before them one of all else. Raises `HostUnfit`."""
    declared, types = _DECLARATION.search(source), _TYPES.search(source)
    state, init, tail = source.find(_STATE), source.find(_GLOBALS), source.rfind(_EXPORTS)
    first = _FUNCTION.search(source, max(init, 0))
    exports = source.find(_EXPORTS)
    if not (declared and types and first and 0 < state < declared.start() < init < first.start() < exports <= tail):
        raise _unknown("source")
    if set(_STACK_POINTER.findall(source)) != {"0"}:
        raise _unknown("globals")
    if not 0 < max(map(int, _FRAME.findall(source)), default=0) <= _FRAME_MOST:
        raise _unknown("frames")
    # Functions of one file call those of others, but nobody outside the add-on does.
    known = _OWN.sub("", source[declared.start() : init])
    head = (
        f'{source[:state]}\n#include "addon.h"\n#define FRAME_MOST {_FRAME_MOST}\n'
        "#undef FUNC_PROLOGUE\n#define FUNC_PROLOGUE STACK_CHECK\n#pragma GCC visibility push(hidden)\n"
    )
    middle = _TYPES.sub(r"\1", source[state : declared.start()])
    rest = f"{head}{middle}{known}{source[init : first.start()]}#pragma GCC visibility pop\n{source[exports:]}"
    shared = f"{head}extern {types[1]}\n{known}"
    return [rest, *(shared + _OWN.sub("", part) for part in _cut(source[first.start() : exports], count))]


def _cut(functions: str, count: int) -> list[str]:
    """Cut at functions' beginnings into `count` texts of about the same length."""
    found: list[list[str]] = [[]]
    taken = 0
    for function in filter(None, _FUNCTION.split(functions)):
        if taken > len(functions) * len(found) / count:
            found.append([])
        found[-1].append(function)
        taken += len(function)
    return ["".join(one) for one in found]


def bindings(header: str) -> str:
    """Render `bindings.h` of wasm2c's header: what each import calls, and the table `EXPORTS`. Raises `HostUnfit`."""
    written = []
    imports = _IMPORT.findall(header)
    exports = _EXPORT.findall(header)
    if not imports or "transformSync" not in [name for _, _, name, _ in exports]:
        raise _unknown("header")
    if not {result for result, *_ in (*imports, *exports)} <= {"u32", "void"}:
        raise _unknown("types")
    for result, function, name, host, types in imports:
        given = _types(types)
        taken = "".join(f", {kind} a{place}" for place, kind in enumerate(given))
        values = ", ".join(f"{_FROM[kind]}(a{place})" for place, kind in enumerate(given)) or "NULL"
        call = f'import("{name}", {len(given)}, given)'
        written.append(
            f"{result} {function}({host} host{taken}) {{\n"
            f"  const napi_value given[] = {{{values}}};\n"
            f"  {f'return to_u32({call})' if result == 'u32' else call};\n"
            "}\n"
        )
    for result, function, name, types in exports:
        values = "".join(f", to_u32(given[{place}])" for place, _ in enumerate(_types(types)))
        call = f"{function}(of{values})"
        body = f"return from_u32({call});" if result == "u32" else f"{call};\n  return NULL;"
        written.append(f"static napi_value call_{name}(Instance *of, const napi_value *given) {{\n  {body}\n}}\n")
    table = "".join(f'  {{"{name}", call_{name}}},\n' for _, _, name, _ in exports)
    return "\n".join([*written, f"static const Export EXPORTS[] = {{\n{table}}};\n"])


def _types(text: str) -> list[str]:
    """Return the types of ", u32, f64". Raises `HostUnfit` for one that has no way to JavaScript."""
    found = [kind.strip() for kind in text.split(",") if kind.strip()]
    if not set(found) <= set(_FROM):
        raise _unknown("types")
    return found


def _unknown(what: str) -> HostUnfit:
    return HostUnfit(
        f"wasm2c writes its C in another way than that of Debian 12 does ({what}): the image is built on Debian 12"
    )

"""Builds the compiler of TypeScript in the root: Amaro, the one that Node has too, in machine code.

It is published, and Node has it, as WebAssembly. V8 compiles that anew in every process that needs it, which took five
times as long as all else of a first call. So it is translated to C, compiled, and made an add-on of Node, of which all
sandboxes share the pages.
"""

import base64
import binascii
import os
import re
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from sandpost.image import npm, recipe, translation, tree, wheel, workshop
from sandpost.image.steps import Site
from sandpost.image.workshop import FOLDER, HEADERS, Workshop
from sandpost.model.errors import HostUnfit

_MODULE = "dist/index.js"
_TEXT = "index.js"
_ADDON = "compiler.node"
_EMBEDDED = re.compile(
    r'\bvar bytes = Buffer2\.from\("([A-Za-z0-9+/=]{1000,})", "base64"\);.*?\bwasm = wasmInstance\.exports;', re.DOTALL
)
_INSTANTIATED = 'wasm = instantiate(imports["__wbindgen_placeholder__"]);'
_PARTS = 16
_C = f"/{FOLDER}/c"
_RUNTIME = "/usr/share/wabt/wasm2c"
_COMPILER = (
    "/usr/bin/gcc",
    # As fast here as -O1, and compiled in two thirds of its time.
    "-Og",
    "-w",
    "-fPIC",
    "-fvisibility=hidden",
    # Whatever address WebAssembly reaches lies in what is reserved for its memory: no access needs a check.
    "-DWASM_RT_MEMCHECK_SIGNAL_HANDLER=1",
    # That a process broke is for its sandbox to tell.
    "-DWASM_RT_SKIP_SIGNAL_RECOVERY=1",
    "-DWASM_RT_USE_STACK_DEPTH_COUNT=0",
    "-DWASM_RT_TRAP_HANDLER=typescript_trap",
    "-include",
    f"/{FOLDER}/sources/addon.h",
    f"-I/{FOLDER}/sources",
    f"-I{_C}",
    f"-I{HEADERS}",
    f"-I{_RUNTIME}",
)


def build(target: str, site: Site, sources: Mapping[str, bytes]) -> dict[str, str]:
    """Make the layer at `target` of our own `sources` in C; return the version of the translator.

    Raises `HostUnfit` with what to do.
    """
    site.progress("fetching the compiler of TypeScript")
    node = wheel.fetch(recipe.NODE_WHEEL, recipe.NODE_WHEEL_SHA256, site)
    archive = npm.fetch(recipe.AMARO, node, site)
    folder = os.path.join(target, recipe.AMARO_FOLDER)
    wasm = _put(archive, folder)
    site.progress("unpacking a compiler of C")
    with workshop.opened(site, recipe.TYPESCRIPT_TOOLS, node, sources) as shop:
        site.progress("compiling the compiler of TypeScript: half a minute or more")
        _compile(shop, wasm)
        shop.put([_ADDON], folder)
    tree.normalise(target)
    return {recipe.TRANSLATOR: shop.versions[recipe.TRANSLATOR]}


def _put(archive: str, folder: str) -> bytes:
    """Put the files of npm's archive into `folder`, and return the WebAssembly. Raises `HostUnfit`."""
    os.makedirs(folder)
    found = b""
    with tarfile.open(archive) as opened:
        for name in recipe.AMARO.files:
            member = opened.extractfile(f"package/{name}")
            if member is None:
                raise HostUnfit(f"{recipe.AMARO.name} has no file {name}: the recipe names what is not there")
            text = member.read().decode()
            if name == _MODULE:
                text, found = split(text)
                tree.write(os.path.join(folder, _TEXT), text)
            else:
                tree.write(os.path.join(folder, name.replace("/", "-")), text)
    return found


def split(text: str) -> tuple[str, bytes]:
    """Return a module that is instantiated by the function `instantiate`, and its WebAssembly. Raises `HostUnfit`."""
    found = _EMBEDDED.findall(text)
    if len(found) != 1:
        raise HostUnfit(
            f"{recipe.AMARO.name} has its WebAssembly in another way than before: build with the pinned one"
        )
    try:
        wasm = base64.b64decode(found[0], validate=True)
    except binascii.Error as error:
        raise HostUnfit(f"the WebAssembly of {recipe.AMARO.name} is not base64: {error}") from None
    return _EMBEDDED.sub(lambda _: _INSTANTIATED, text), wasm


def _compile(shop: Workshop, wasm: bytes) -> None:
    """Make the add-on of the WebAssembly."""
    folder = os.path.join(shop.root, _C[1:])
    os.mkdir(folder)
    with open(os.path.join(folder, "compiler.wasm"), "wb") as file:
        file.write(wasm)
    made = f"{_C}/compiler.c"
    shop.run(["/usr/bin/wasm2c", f"{_C}/compiler.wasm", "-n", translation.MODULE, "-o", made], "translate WebAssembly")
    with open(os.path.join(folder, translation.HEADER), encoding="ascii") as header:
        tree.write(os.path.join(folder, "bindings.h"), translation.bindings(header.read()))
    with open(os.path.join(folder, "compiler.c"), encoding="ascii") as source:
        parts = translation.parts(source.read(), _PARTS)
    files = [f"{_RUNTIME}/wasm-rt-impl.c", *shop.inside("sources/*.c")]
    for number, part in enumerate(parts):
        tree.write(os.path.join(folder, f"part{number}.c"), part)
        files.append(f"{_C}/part{number}.c")

    def compiled(file: str) -> str:
        name = f"{_C}/{os.path.basename(file)}.o"
        shop.run([*_COMPILER, "-c", file, "-o", name], f"compile {file}")
        return name

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(compiled, files))
    shop.run(["/usr/bin/gcc", "-shared", "-s", "-o", f"/{FOLDER}/{_ADDON}", *objects, "-lm"], "link the compiler")

"""Puts the compiler of TypeScript into the root: Amaro, the one that Node has too, with its WebAssembly as a file.

As it is published, and as Node has it, the WebAssembly is 3.8 MB of text within a module. To read that, compile it and
decode it took more than half of a first program's time.
"""

import base64
import binascii
import os
import re
import tarfile

from sandpost.image import recipe, tree
from sandpost.model.errors import HostUnfit

_MODULE = "dist/index.js"
_TEXT = "index.js"
_WASM = "index.wasm"
_EMBEDDED = re.compile(r'\bBuffer2\.from\("([A-Za-z0-9+/=]{1000,})", "base64"\)')
_READ = f'require("node:fs").readFileSync(`${{__dirname}}/{_WASM}`)'


def put(archive: str, target: str) -> None:
    """Put the compiler of npm's archive into the root at `target`. Raises `HostUnfit`."""
    folder = os.path.join(target, recipe.AMARO_FOLDER)
    os.makedirs(folder)
    with tarfile.open(archive) as opened:
        for name in recipe.AMARO.files:
            member = opened.extractfile(f"package/{name}")
            if member is None:
                raise HostUnfit(f"{recipe.AMARO.name} has no file {name}: the recipe names what is not there")
            content = member.read()
            if name == _MODULE:
                text, wasm = split(content.decode())
                tree.write(os.path.join(folder, _TEXT), text)
                with open(os.path.join(folder, _WASM), "wb") as file:
                    file.write(wasm)
            else:
                tree.write(os.path.join(folder, name.replace("/", "-")), content.decode())


def split(text: str) -> tuple[str, bytes]:
    """Return a module that reads its WebAssembly from the file beside it, and that file. Raises `HostUnfit`."""
    found = _EMBEDDED.findall(text)
    if len(found) != 1:
        raise HostUnfit(
            f"{recipe.AMARO.name} has its WebAssembly in another way than before: build with the pinned one"
        )
    try:
        wasm = base64.b64decode(found[0], validate=True)
    except binascii.Error as error:
        raise HostUnfit(f"the WebAssembly of {recipe.AMARO.name} is not base64: {error}") from None
    return _EMBEDDED.sub(lambda _: _READ, text), wasm

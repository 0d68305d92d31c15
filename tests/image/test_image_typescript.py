"""The compiler of TypeScript as it is put into the root."""

import base64

import pytest

from sandpost.image import typescript
from sandpost.model.errors import HostUnfit

WASM = b"\0asm\1\0\0\0" + bytes(range(256)) * 8
EMBEDDED = f'var bytes = Buffer2.from("{base64.b64encode(WASM).decode()}", "base64");'


def test_webassembly_becomes_a_file_beside_the_module() -> None:
    text, wasm = typescript.split(f"before();\n{EMBEDDED}\nafter();\n")
    assert wasm == WASM
    assert text == 'before();\nvar bytes = require("node:fs").readFileSync(`${__dirname}/index.wasm`);\nafter();\n'


@pytest.mark.parametrize("text", ["", "var bytes = load();", EMBEDDED * 2, EMBEDDED.replace("Buffer2", "MyBuffer2")])
def test_a_module_that_is_made_in_another_way_is_told(text: str) -> None:
    with pytest.raises(HostUnfit, match="another way than before: build with the pinned one"):
        typescript.split(text)


def test_webassembly_that_is_cut_off_is_told() -> None:
    with pytest.raises(HostUnfit, match="is not base64"):
        typescript.split(EMBEDDED.replace('", "base64"', '0", "base64"'))

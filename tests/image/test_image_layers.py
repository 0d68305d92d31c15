"""The layers of the root that languages need, above the base."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

import sandpost.runtimes
from sandpost.image import coreclr, csharp, recipe, tree, typescript
from sandpost.image.build import sources_of
from sandpost.image.steps import Site
from sandpost.model.errors import HostUnfit

CACHE = "/var/lib/sandpost/image/.cache"
DRAWN = uuid.UUID("dbcab46d-7b18-62cb-5a5d-989b1e279e49")
SAID = f"Mono Ahead of Time compiler - compiling assembly /a.dll\nAOTID {str(DRAWN).upper()}\nCompiled: 1/1\n"


def test_what_mono_compiled_has_an_id_that_follows_from_it() -> None:
    made = csharp.fixed_id(b"before" + DRAWN.bytes_le + b"after", SAID)
    other = uuid.UUID(int=DRAWN.int + 1)
    assert made == csharp.fixed_id(b"before" + other.bytes_le + b"after", SAID.replace(str(DRAWN).upper(), str(other)))
    assert made != csharp.fixed_id(b"behind" + DRAWN.bytes_le + b"after", SAID)[: len(made)]
    assert (made[:6], made[-5:], len(made)) == (b"before", b"after", 27)


@pytest.mark.parametrize(
    ("image", "said"), [(b"nothing", SAID), (DRAWN.bytes_le * 2, SAID), (DRAWN.bytes_le, "no word")]
)
def test_an_id_that_cannot_be_found_is_told(image: bytes, said: str) -> None:
    with pytest.raises(HostUnfit, match="what id"):
        csharp.fixed_id(image, said)


@pytest.mark.parametrize("key", [recipe.typescript_key, recipe.csharp_key, recipe.coreclr_key])
def test_the_key_follows_from_our_sources(key: Callable[[str, str, list[recipe.Entry]], str]) -> None:
    one = [recipe.Entry("A.cs", "f", 0o644, 1, "a")]
    other = [recipe.Entry("A.cs", "f", 0o644, 1, "b")]
    assert key("bookworm", "x86_64", one) == key("bookworm", "x86_64", one)
    assert key("bookworm", "x86_64", one) != key("bookworm", "x86_64", other)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "program"),
    [
        ("typescript", f"{recipe.AMARO_FOLDER}/compiler.node"),
        ("csharp", "usr/bin/mono-sgen"),
        ("coreclr", f"{recipe.DOTNET}/dotnet"),
    ],
)
def test_two_builds_are_equal(tmp_path: Path, kind: str, program: str) -> None:
    sources = sources_of(next(iter(sandpost.runtimes.__path__)), kind)
    found = []
    for name in ("one", "other"):
        scratch = tmp_path / name
        scratch.mkdir()
        target = str(scratch / "tree")
        site = Site("bookworm", str(scratch), CACHE, -1, lambda _: None)
        build = {"typescript": typescript.build, "csharp": csharp.build, "coreclr": coreclr.build}[kind]
        build(target, site, sources)
        found.append(tree.read(target))
        assert not [path for path in Path("/proc/self/mountinfo").read_text().split() if path.startswith(str(scratch))]
    assert found[0] == found[1]
    assert os.access(os.path.join(target, program), os.X_OK)

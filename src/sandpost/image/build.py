"""Makes sure that the image of this release is there.

<image_dir>/<digest>/rootfs, manifest.json   one image: complete or not there
<image_dir>/.base/<key>/tree, base.json      a layer: Debian and Node, or a language; images' files are hard links
<image_dir>/.cache                           the wheel and npm's archives
<image_dir>/.building-*                      a build at work, or what a killed one left; .lock tells which
"""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sandpost.runtimes
from sandpost.image import base, csharp, recipe, tree, typescript, use, workplace
from sandpost.image import coreclr as clr
from sandpost.image.bundle import bundle
from sandpost.image.steps import Site
from sandpost.model.errors import HostUnfit

_KeyOf = Callable[[str, str, Sequence[recipe.Entry]], str]
_Build = Callable[[str, Site, Mapping[str, bytes]], dict[str, str]]
_RUNTIME_SUFFIXES = (".js", ".mjs", ".cjs", ".json", ".py")


@dataclass(frozen=True, slots=True)
class _Layer:
    path: str
    packages: dict[str, str]
    content: str


@dataclass(frozen=True, slots=True)
class _Plan:
    """A layer that an image wants: its key, and what makes its tree and returns its packages' versions."""

    key: str
    make: Callable[[str, Site], dict[str, str]]
    """Called with the tree's path."""


def ensure(
    image_dir: str,
    progress: Callable[[str], None],
    *,
    coreclr: bool = False,
    renew: bool = False,
    runtimes: str | None = None,
) -> str:
    """Return the digest of this release's image, building it first if it is not there.

    With the image there it is a matter of milliseconds. `coreclr` wants one with CoreCLR for C#, beside Mono. `renew`
    unpacks the packages' newest versions beside what is there; an image keeps its files whatever is built later.
    `runtimes` is the folder of runtimes if they are not this release's. Builds of several processes wait for one
    another; a killed build leaves nothing that the next does not remove. Raises `HostUnfit` with what to do.
    """
    folder = runtimes or next(iter(sandpost.runtimes.__path__))
    suite = _suite()
    plans = _plans(suite, folder, coreclr=coreclr)
    files = _runtime_files(folder)
    if not renew and (digest := _present(image_dir, plans, files)) is not None:
        return digest
    _make_folder(image_dir)
    with workplace.locked(image_dir) as lock:
        if not renew and (digest := _present(image_dir, plans, files)) is not None:
            return digest
        workplace.sweep(image_dir)
        layers = []
        for plan in plans:
            found = None if renew else _read_layer(image_dir, plan.key)
            layers.append(found or _build_layer(image_dir, plan, suite, lock, progress))
        return _build_image(image_dir, plans, layers, files, progress)


def manifest(image_dir: str, digest: str) -> dict[str, object]:
    """Read what an image holds: `digest`, `layers`, `content`, `packages` with versions, `node`."""
    with open(os.path.join(image_dir, digest, "manifest.json"), encoding="utf-8") as file:
        found: dict[str, object] = json.load(file)
    return found


def _plans(suite: str, folder: str, *, coreclr: bool) -> list[_Plan]:
    """Return the layers of an image whose runtimes are in `folder`, lowest first."""
    plans = [_Plan(recipe.base_key(suite, platform.machine()), base.build)]
    wanted: list[tuple[str, _KeyOf, _Build]] = [
        ("typescript", recipe.typescript_key, typescript.build),
        ("csharp", recipe.csharp_key, csharp.build),
    ]
    if coreclr:
        wanted.append(("coreclr", recipe.coreclr_key, clr.build))
    for layer, key_of, build in wanted:
        sources = sources_of(folder, layer)
        if sources:
            plans.append(_of_ours(suite, sources, key_of, build))
    return plans


def _of_ours(suite: str, sources: dict[str, bytes], key_of: _KeyOf, build: _Build) -> _Plan:
    """Return the layer that `build` makes of sources of ours."""
    key = key_of(suite, platform.machine(), _entries(sources))
    return _Plan(key, lambda target, site: build(target, site, sources))


def sources_of(folder: str, layer: str) -> dict[str, bytes]:
    """Return our sources of a layer (`typescript`, `csharp`, `coreclr`) by name, in a folder of runtimes."""
    node = Path(folder, "node")
    found = {*node.glob(f"{layer}/*.[ch]*"), *(node.glob("csharp/*.h") if layer == "coreclr" else ())}
    return {path.name: path.read_bytes() for path in sorted(found)}


def _digest(plans: Sequence[_Plan], layers: Sequence[_Layer], runtimes: dict[str, bytes]) -> str:
    return recipe.image_digest([plan.key for plan in plans], _packages(layers), _entries(runtimes))


def _packages(layers: Sequence[_Layer]) -> dict[str, str]:
    return {name: version for layer in layers for name, version in layer.packages.items()}


def _present(image_dir: str, plans: Sequence[_Plan], runtimes: dict[str, bytes]) -> str | None:
    layers = []
    for plan in plans:
        found = _read_layer(image_dir, plan.key)
        if found is None:
            return None
        layers.append(found)
    digest = _digest(plans, layers, runtimes)
    return digest if use.want(image_dir, digest) else None


def _read_layer(image_dir: str, key: str) -> _Layer | None:
    path = os.path.join(image_dir, workplace.LAYERS, key)
    try:
        with open(os.path.join(path, "base.json"), encoding="utf-8") as file:
            known = json.load(file)
    except FileNotFoundError:
        return None
    return _Layer(os.path.join(path, "tree"), known["packages"], known["content"])


def _build_layer(image_dir: str, plan: _Plan, suite: str, lock: int, progress: Callable[[str], None]) -> _Layer:
    if platform.machine() != "x86_64":
        raise HostUnfit(f"the image's Node is pinned for x86_64; this machine is {platform.machine()}")
    with workplace.scratch(image_dir) as scratch:
        made = os.path.join(scratch, "layer")
        os.mkdir(made, 0o755)
        site = Site(suite, scratch, os.path.join(image_dir, ".cache"), lock, progress)
        packages = plan.make(os.path.join(made, "tree"), site)
        content = recipe.content_digest(tree.read(os.path.join(made, "tree")))
        tree.write(os.path.join(made, "base.json"), json.dumps({"packages": packages, "content": content}, indent=1))
        # The names below claim that the files are whole, after a power cut too.
        os.sync()
        final = os.path.join(image_dir, workplace.LAYERS, plan.key)
        os.makedirs(os.path.dirname(final), mode=0o755, exist_ok=True)
        if os.path.lexists(final):
            os.rename(final, os.path.join(scratch, "superseded"))
        os.rename(made, final)
    return _Layer(os.path.join(final, "tree"), packages, content)


def _build_image(
    image_dir: str,
    plans: Sequence[_Plan],
    layers: Sequence[_Layer],
    runtimes: dict[str, bytes],
    progress: Callable[[str], None],
) -> str:
    entries = _entries(runtimes)
    digest = _digest(plans, layers, runtimes)
    final = os.path.join(image_dir, digest)
    if use.want(image_dir, digest):
        return digest
    progress(f"putting image {digest} together")
    with workplace.scratch(image_dir) as scratch:
        made = os.path.join(scratch, "image")
        os.mkdir(made, 0o755)
        rootfs = os.path.join(made, "rootfs")
        for layer in layers:
            tree.link(layer.path, rootfs)
        above = os.path.join(scratch, "runtimes")
        for name, content in runtimes.items():
            path = Path(above, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        tree.normalise(above)
        installed = os.path.join(rootfs, recipe.RUNTIMES)
        shutil.copytree(above, installed, dirs_exist_ok=True)
        if any(name.endswith(".py") for name in runtimes):
            base.compile_python(rootfs, recipe.RUNTIMES, scratch)
            tree.normalise(installed)
        below = [recipe.Entry("layer", "d", 0o755, 0, layer.content) for layer in layers]
        written = {
            "digest": digest,
            "layers": [plan.key for plan in plans],
            "content": recipe.content_digest(below, entries),
            "packages": _packages(layers),
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
        if path.is_file() and path.suffix in _RUNTIME_SUFFIXES and path.parent != Path(folder)
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

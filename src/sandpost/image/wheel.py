"""Wheels that go into the root or are built with: that of Node, with its headers and npm, and that of pip."""

import os
import shutil
import sys
import zipfile

from sandpost.image import cache, recipe, tree
from sandpost.image.steps import Site, run


def fetch(package: str, digest: str, site: Site) -> str:
    """Return the path of a wheel in the cache, fetching it first if it is not there. Raises `HostUnfit`.

    `package` is its name and version as pip takes them, `digest` the SHA-256 that it must have.
    """

    def download(folder: str) -> None:
        wanted = os.path.join(site.scratch, "requirements.txt")
        tree.write(wanted, f"{package} --hash=sha256:{digest}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        run([*command, "--require-hashes", "--dest", folder, "-r", wanted], f"fetch {package}", site.scratch)

    return cache.kept(site.cache, digest, ".whl", site.scratch, download)


def put_node(wheel: str, path: str) -> None:
    """Write the wheel's Node to `path`, for all to run."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with zipfile.ZipFile(wheel) as archive, archive.open(recipe.NODE_IN_WHEEL) as source, open(path, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    tree.open_to_all(path)


def put_folder(wheel: str, within: str, target: str, without: tuple[str, ...] = ()) -> None:
    """Put the files of a wheel that lie below `within` at `target`, but for those below `without`."""
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            name = info.filename.removeprefix(within)
            if info.is_dir() or not info.filename.startswith(within) or name.startswith(without):
                continue
            path = os.path.join(target, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(info) as source, open(path, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)

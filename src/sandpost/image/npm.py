"""Archives of npm's that go into the root or are built from, fetched by the npm of Node's wheel."""

import os
import tarfile

from sandpost.image import cache, recipe, wheel
from sandpost.image.steps import Site, run


def fetch(package: recipe.NpmPackage, node_wheel: str, site: Site) -> str:
    """Return the path of a package's archive in the cache, fetching it first if it is not there. Raises `HostUnfit`."""
    scratch = site.scratch

    def pack(folder: str) -> None:
        node = os.path.join(scratch, recipe.NODE_IN_WHEEL)
        if not os.path.exists(node):
            wheel.put_folder(node_wheel, recipe.NPM_IN_WHEEL, os.path.join(scratch, recipe.NPM_IN_WHEEL))
            wheel.put_node(node_wheel, node)
        command = [node, os.path.join(scratch, recipe.NPM_IN_WHEEL, "bin/npm-cli.js"), "pack", package.name, "--silent"]
        options = ["--ignore-scripts", "--no-update-notifier", f"--cache={scratch}/npm", f"--pack-destination={folder}"]
        run([*command, *options], f"fetch {package.name}", scratch)

    return cache.kept(site.cache, package.sha256, ".tgz", scratch, pack)


def unpack(archive: str, folder: str) -> None:
    """Put the files of an archive into `folder`: they lie in its folder `package`."""
    with tarfile.open(archive) as opened:
        opened.extractall(folder)  # noqa: S202 - its hash is pinned

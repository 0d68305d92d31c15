"""Debian's packages, unpacked into a tree and nothing more: no maintainer script runs."""

import os
from collections.abc import Sequence

from sandpost.image import recipe, tree
from sandpost.image.steps import Site, run
from sandpost.model.errors import HostUnfit

CERTIFICATES = "usr/share/ca-certificates/mozilla"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def unpack(target: str, packages: Sequence[str], site: Site) -> dict[str, str]:
    """Unpack `packages` and what they depend on at `target`; return the versions of all.

    The archives lie in `var/cache/apt/archives`. Raises `HostUnfit` with what to do.
    """
    # Only unpacked: no maintainer script runs, so nothing but the archives decides what is in the tree.
    scratch = site.scratch
    targets = run(["apt-get", "indextargets"], "list apt's sources", scratch)
    sources = os.path.join(scratch, "sources.list")
    tree.write(sources, recipe.sources(targets, site.suite, _KEYRING))
    options = os.path.join(scratch, "apt.conf")
    dump = ["apt-config", "dump", "--no-empty", "--format", '%F "%v";%n', "Acquire::http", "Acquire::https"]
    tree.write(options, run(dump, "read apt's settings", scratch))
    command = [
        "mmdebstrap",
        "--variant=extract",
        "--mode=root",
        "--quiet",
        "--hook-directory=/usr/share/mmdebstrap/hooks/merged-usr",
        f"--include={','.join(packages)}",
        f"--aptopt={options}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Install-Recommends "false"',
        "--skip=cleanup/apt",
        site.suite,
        target,
        sources,
    ]
    run(command, "unpack Debian packages", scratch, site.hold)
    found = recipe.package_versions(os.listdir(os.path.join(target, "var/cache/apt/archives")))
    missing = set(packages) - set(found)
    if missing:
        raise HostUnfit(f"mmdebstrap did not unpack {', '.join(sorted(missing))}: run `apt-get update` and start again")
    return found


def certificates(target: str) -> list[str]:
    """Return the paths of the authorities' certificates in a tree with `ca-certificates`. Raises `HostUnfit`."""
    folder = os.path.join(target, CERTIFICATES)
    found = sorted(os.listdir(folder))
    if not found:
        raise HostUnfit("the package ca-certificates holds no certificates: run `apt-get update` and start again")
    return [os.path.join(folder, name) for name in found]

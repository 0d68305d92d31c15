"""Builds the base tree: Debian packages by mmdebstrap, Node from its wheel, and the few files of our own."""

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence

from sandpost.image import recipe, tree
from sandpost.model.errors import HostUnfit

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_DEADLINE = 900.0


def build(
    target: str, suite: str, scratch: str, cache: str, hold: int, progress: Callable[[str], None]
) -> dict[str, str]:
    """Make the tree at `target` and return its packages' versions.

    `scratch` is an empty folder of the caller's; `cache` keeps the wheel; `hold` is the lock's descriptor.
    Raises `HostUnfit` with what to do.
    """
    progress("fetching Node")
    wheel = _wheel(scratch, cache)
    progress("unpacking Debian packages")
    packages = _debian(target, suite, scratch, hold)
    progress("putting Node and certificates in place")
    for name in recipe.EXCLUDED:
        tree.remove(os.path.join(target, name))
    tree.remove(os.path.join(target, "dev"))
    _certificates(target)
    _node(target, wheel)
    for name in ("dev", "proc", "sys", "tmp", "home", recipe.RUNTIMES):
        os.makedirs(os.path.join(target, name), exist_ok=True)
    for name, text in recipe.FILES.items():
        tree.write(os.path.join(target, name), text)
    for name, to in recipe.LINKS.items():
        tree.remove(os.path.join(target, name))
        os.symlink(to, os.path.join(target, name))
    _run(["ldconfig", "-X", "-r", target], "run ldconfig", scratch)
    tree.remove(os.path.join(target, "var/cache"))
    tree.normalise(target)
    # What is mounted on a folder takes its mode.
    os.chmod(os.path.join(target, "tmp"), 0o1777)  # noqa: S103
    return packages


def _debian(target: str, suite: str, scratch: str, hold: int) -> dict[str, str]:
    # Only unpacked: no maintainer script runs, so nothing but the archives decides what is in the tree.
    targets = _run(["apt-get", "indextargets"], "list apt's sources", scratch)
    sources = os.path.join(scratch, "sources.list")
    tree.write(sources, recipe.sources(targets, suite, _KEYRING))
    options = os.path.join(scratch, "apt.conf")
    dump = ["apt-config", "dump", "--no-empty", "--format", '%F "%v";%n', "Acquire::http", "Acquire::https"]
    tree.write(options, _run(dump, "read apt's settings", scratch))
    command = [
        "mmdebstrap",
        "--variant=extract",
        "--mode=root",
        "--quiet",
        "--hook-directory=/usr/share/mmdebstrap/hooks/merged-usr",
        f"--include={','.join(recipe.PACKAGES)}",
        f"--aptopt={options}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=APT::Install-Recommends "false"',
        "--skip=cleanup/apt",
        suite,
        target,
        sources,
    ]
    _run(command, "unpack Debian packages", scratch, hold)
    packages = recipe.package_versions(os.listdir(os.path.join(target, "var/cache/apt/archives")))
    missing = set(recipe.PACKAGES) - set(packages)
    if missing:
        raise HostUnfit(f"mmdebstrap did not unpack {', '.join(sorted(missing))}: run `apt-get update` and start again")
    return packages


def _wheel(scratch: str, cache: str) -> str:
    kept = os.path.join(cache, f"{recipe.NODE_WHEEL_SHA256}.whl")
    if not os.path.exists(kept) or tree.file_hash(kept) != recipe.NODE_WHEEL_SHA256:
        wanted = os.path.join(scratch, "requirements.txt")
        tree.write(wanted, f"{recipe.NODE_WHEEL} --hash=sha256:{recipe.NODE_WHEEL_SHA256}\n")
        folder = os.path.join(scratch, "wheel")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        _run([*command, "--require-hashes", "--dest", folder, "-r", wanted], f"fetch {recipe.NODE_WHEEL}", scratch)
        (name,) = os.listdir(folder)
        found = os.path.join(folder, name)
        if tree.file_hash(found) != recipe.NODE_WHEEL_SHA256:
            raise HostUnfit(f"{name} is not the file that the recipe pins: look at what the package index serves")
        os.makedirs(cache, mode=0o755, exist_ok=True)
        os.rename(found, kept)
    return kept


def _node(target: str, wheel: str) -> None:
    path = os.path.join(target, recipe.NODE)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with zipfile.ZipFile(wheel) as archive, archive.open(recipe.NODE_IN_WHEEL) as source, open(path, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    tree.open_to_all(path)


def _certificates(target: str) -> None:
    folder = os.path.join(target, "usr/share/ca-certificates/mozilla")
    parts = []
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), encoding="ascii") as file:
            parts.append(file.read().rstrip("\n") + "\n")
    if not parts:
        raise HostUnfit("the package ca-certificates holds no certificates: run `apt-get update` and start again")
    path = os.path.join(target, _BUNDLE)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    tree.write(path, "".join(parts))


def _run(command: Sequence[str], purpose: str, scratch: str, hold: int = -1) -> str:
    """Run a step in a process group of its own, so that nothing of it outlives its end here.

    `hold` is a descriptor that the step inherits: the lock, which so outlives a kill of this process.
    """
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(recipe.EPOCH), "LC_ALL": "C.UTF-8", "TMPDIR": scratch}
    try:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            process_group=0,
            pass_fds=(hold,) if hold >= 0 else (),
        )
    except FileNotFoundError:
        raise HostUnfit(f"`{command[0]}` is missing: run `apt-get install {command[0]}`") from None
    with child:
        try:
            output, errors = child.communicate(timeout=_DEADLINE)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise HostUnfit(f"could not {purpose} within {_DEADLINE:.0f} s: look at the network") from None
            raise
    if child.returncode != 0:
        last = " | ".join(errors.strip().splitlines()[-3:])
        raise HostUnfit(f"could not {purpose}: `{command[0]}` ended with {child.returncode}: {last}")
    return output

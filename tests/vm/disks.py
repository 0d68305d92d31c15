"""The disks of the virtual machine: a system's, kept and found again by what went in, and those of one run."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".vm"
_INPUTS = (
    "requirements.txt",
    "requirements-dev.txt",
    "pyproject.toml",
    "scripts/install",
    "tests/vm/disks.py",
    "tests/vm/make-root",
    "tests/vm/sandpost-vm.service",
)
"""What decides what is on a system's disk, but for the packages' versions: `rm -r .vm` gets newer ones."""
_BUILD_DEADLINE = 900.0
_SYSTEM_SIZE = "6G"
_RUN_SIZE = "6G"
_SWAP_SIZE = "512M"


@dataclass(frozen=True, slots=True)
class System:
    """A Debian on which `scripts/install` has run, and what boots it."""

    disk: Path
    kernel: Path
    initrd: Path


@dataclass(frozen=True, slots=True)
class Run:
    """What one run has of its own; `folder` takes whatever else it writes."""

    folder: Path
    disk: Path
    swap: Path


def system() -> System:
    """Return the system that this checkout asks for, made first if it is not there: a minute or two."""
    made = CACHE / _key()
    with _locked():
        if not made.is_dir():
            _make_system(made)
        # One system is as much as a checkout needs.
        for other in CACHE.iterdir():
            if other.is_dir() and other != made and not other.name.startswith("run-"):
                shutil.rmtree(other)
    return System(made / "system.img", made / "vmlinuz", made / "initrd.img")


@contextmanager
def run(image_dir: Path, image: str, arguments: Sequence[str], deadline: int) -> Iterator[Run]:
    """Make the disks of one run: this checkout, the image of sandboxes, pytest's arguments, and swap.

    `deadline`: seconds after the machine's start at which pytest is interrupted.
    """
    with _run_folder() as folder:
        content = folder / "content"
        _copy_checkout(content / "checkout")
        # runsc takes minutes to build, and is one file.
        shutil.copytree(ROOT / ".tools", content / "checkout/.tools", ignore=shutil.ignore_patterns("build"))
        _copy_image(image_dir, image, content / "image")
        (content / "arguments").write_text("".join(f"{argument}\n" for argument in arguments))
        (content / "deadline").write_text(f"{deadline}\n")
        found = Run(folder, folder / "run.img", folder / "swap.img")
        _make_disk(found.disk, _RUN_SIZE, content)
        shutil.rmtree(content)
        # Memory limits must hold on a machine that could swap.
        _truncate(found.swap, _SWAP_SIZE)
        subprocess.run(["mkswap", "--quiet", found.swap], check=True, timeout=60)
        yield found


def _key() -> str:
    digest = hashlib.sha256()
    for name in _INPUTS:
        digest.update((ROOT / name).read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _make_system(final: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="building-", dir=CACHE) as scratch:
        root, checkout, made = (Path(scratch, name) for name in ("root", "checkout", "made"))
        _copy_checkout(checkout)
        made.mkdir()
        # In a process namespace: with its first process everything of it ends.
        options = ["--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = ["unshare", *options, str(ROOT / "tests/vm/make-root"), str(root), str(checkout)]
        subprocess.run(command, check=True, timeout=_BUILD_DEADLINE, stdin=subprocess.DEVNULL)
        _make_disk(made / "system.img", _SYSTEM_SIZE, root)
        for name in ("vmlinuz", "initrd.img"):
            shutil.copy(root / name, made / name)
        made.rename(final)


def _copy_checkout(to: Path) -> None:
    """Copy what git knows or would take up: no virtual environment, no cache, and no history."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60).stdout
    for name in filter(None, names.decode().split("\0")):
        source = ROOT / name
        if source.is_symlink() or source.exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, to / name, follow_symlinks=False)


def _copy_image(image_dir: Path, image: str, to: Path) -> None:
    """Copy an image and the base that it shares files with, as links where these are links."""
    to.mkdir(parents=True)
    command = ["cp", "--archive", "--reflink=auto", str(image_dir / image), str(image_dir / ".base"), str(to)]
    subprocess.run(command, check=True, timeout=300)


def _make_disk(path: Path, size: str, content: Path) -> None:
    _truncate(path, size)
    options = ["-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard"]
    subprocess.run(["mke2fs", *options, "-d", str(content), str(path)], check=True, timeout=300)


def _truncate(path: Path, size: str) -> None:
    subprocess.run(["truncate", f"--size={size}", str(path)], check=True, timeout=60)


@contextmanager
def _locked() -> Iterator[None]:
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _run_folder() -> Iterator[Path]:
    """A folder that is locked while its run lives: what a killed one left, the next removes."""
    with _locked():
        for other in CACHE.glob("run-*"):
            with _opened(other) as fd:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(other)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(lock)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)

"""The root as it is built on this machine."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpost.image import recipe, use
from sandpost.image.build import ensure, manifest
from sandpost.model.errors import HostUnfit

CACHE = Path("/var/lib/sandpost/image/.cache")
MAIN = "require('http').createServer((q, s) => s.end('ok')).listen(8000);\n"


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runtimes")
    (folder / "node").mkdir()
    (folder / "node" / "main.js").write_text(MAIN)
    (folder / "python").mkdir()
    (folder / "python" / "main.py").write_text("print('booted')\n")
    return str(folder)


@pytest.fixture(scope="module")
def image_dir(runtimes: str) -> Iterator[str]:
    folder = _folder()
    ensure(folder, _quiet, runtimes=runtimes)
    yield folder
    shutil.rmtree(folder)


def _said_by_node(root: str, script: str) -> list[str]:
    command = ["chroot", "--userspec=1000:1000", root, "/usr/local/bin/node", "-e", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.split("\n")


def test_a_program_finds_shell_tools_certificates_and_node(image_dir: str, runtimes: str) -> None:
    root = os.path.join(image_dir, ensure(image_dir, _quiet, runtimes=runtimes), "rootfs")
    script = (
        "const c=require('child_process').execSync;"
        'console.log(c(\'id -un; ls / | sort | tr "\\\\n" " "; grep -c BEGIN /etc/ssl/certs/ca-certificates.crt;'
        ' printf a:b | awk -F: "{print \\\\$2}"; tini --version\').toString())'
    )
    said = _said_by_node(root, script)
    assert said[0] == "sandbox"
    assert said[1].startswith("bin dev etc home lib lib32 lib64 libx32 modules opt proc run sbin sys tmp usr var 1")
    assert said[2] == "b"
    assert said[3].startswith("tini version 0.19")


def test_python_is_there_compiled_and_runs_the_runtime(image_dir: str, runtimes: str) -> None:
    root = os.path.join(image_dir, ensure(image_dir, _quiet, runtimes=runtimes), "rootfs")
    script = (
        "import asyncio, ctypes, sqlite3, ssl, sys; from importlib.util import find_spec;"
        "print(sys.version_info[:2], all(os.path.exists(m.__cached__) for m in (asyncio, sqlite3, ssl)))"
    )
    command = ["chroot", "--userspec=1000:1000", root, f"/{recipe.PYTHON}", "-I", "-S"]
    said = subprocess.run(
        [*command, "-c", f"import os; {script}"], capture_output=True, text=True, timeout=30, check=True
    )
    assert said.stdout.endswith(" True\n"), said
    here = Path(root, recipe.RUNTIMES, "python")
    assert {path.stem for path in here.glob("*.py")} == {
        path.name.split(".")[0] for path in here.glob("__pycache__/*.pyc")
    }
    said = subprocess.run(
        [*command, f"/{recipe.RUNTIMES}/python/main.py"], capture_output=True, text=True, timeout=30, check=True
    )
    assert said.stdout == "booted\n"


def test_nothing_in_the_root_is_privileged_writable_or_dated(image_dir: str, runtimes: str) -> None:
    root = Path(image_dir, ensure(image_dir, _quiet, runtimes=runtimes), "rootfs")
    for path in root.rglob("*"):
        info = path.lstat()
        assert info.st_mtime == recipe.EPOCH or path.is_dir() or "opt/sandpost" in str(path)
        assert info.st_uid == info.st_gid == 0
        assert path.is_symlink() or (path.is_dir() or path.is_file())
        assert path.is_symlink() or info.st_mode & 0o7022 == 0 or path == root / "tmp"
        assert path.is_symlink() or info.st_mode & 0o004
    assert not (root / "etc/machine-id").exists()
    assert not (root / "etc/apt").exists()
    assert not list(root.rglob("*.deb"))


def test_what_is_there_is_found_within_50_ms(image_dir: str, runtimes: str) -> None:
    took = []
    for _ in range(5):
        began = time.perf_counter()
        ensure(image_dir, pytest.fail, runtimes=runtimes)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.05


def test_the_manifest_lists_versions_and_the_digest(image_dir: str, runtimes: str) -> None:
    digest = ensure(image_dir, _quiet, runtimes=runtimes)
    known = manifest(image_dir, digest)
    assert known["digest"] == digest
    assert known["node"] == recipe.NODE_WHEEL
    packages = known["packages"]
    assert isinstance(packages, dict)
    assert set(recipe.PACKAGES) <= set(packages)


def test_a_changed_runtime_goes_beside_within_3_s_and_shares_node(
    image_dir: str, runtimes: str, tmp_path: Path
) -> None:
    before = ensure(image_dir, _quiet, runtimes=runtimes)
    shutil.copytree(runtimes, tmp_path / "other")
    (tmp_path / "other" / "node" / "main.js").write_text(MAIN + "// changed\n")
    began = time.perf_counter()
    after = ensure(image_dir, _quiet, runtimes=str(tmp_path / "other"))
    assert time.perf_counter() - began < 3
    assert after != before
    old, new = Path(image_dir, before, "rootfs"), Path(image_dir, after, "rootfs")
    assert (old / recipe.NODE).samefile(new / recipe.NODE)
    assert (old / "opt/sandpost/node/main.js").read_text() == MAIN
    assert (new / "opt/sandpost/node/main.js").read_text() == MAIN + "// changed\n"


def test_an_image_that_is_held_or_runs_is_not_pruned(image_dir: str, runtimes: str, tmp_path: Path) -> None:
    shutil.copytree(runtimes, tmp_path / "other")
    (tmp_path / "other" / "node" / "main.js").write_text(MAIN + "// pruned\n")
    first = ensure(image_dir, _quiet, runtimes=runtimes)
    second = ensure(image_dir, _quiet, runtimes=str(tmp_path / "other"))
    rootfs = os.path.join(image_dir, second, "rootfs")
    held = use.hold(image_dir, second)
    assert second not in use.prune(image_dir, {first}, unused_for=0)
    os.close(held)
    with subprocess.Popen(["chroot", rootfs, "/usr/bin/sleep", "60"]) as sleeper:
        deadline = time.monotonic() + 5
        while os.stat(f"/proc/{sleeper.pid}/root").st_ino != os.stat(rootfs).st_ino:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert second not in use.prune(image_dir, {first}, unused_for=0)
        sleeper.kill()
    assert second in use.prune(image_dir, {first}, unused_for=0)
    assert not os.path.exists(rootfs)
    assert first in os.listdir(image_dir)


def test_warming_reads_node_and_the_runtime(image_dir: str, runtimes: str) -> None:
    rootfs = os.path.join(image_dir, ensure(image_dir, _quiet, runtimes=runtimes), "rootfs")
    assert use.warm(rootfs) > os.path.getsize(os.path.join(rootfs, recipe.NODE)) + len(MAIN)


def test_holding_an_image_that_is_not_there_says_what_builds_it(image_dir: str) -> None:
    with pytest.raises(HostUnfit, match="scripts/serve"):
        use.hold(image_dir, "0" * 32)


def test_a_closed_folder_on_the_way_is_named(image_dir: str, runtimes: str) -> None:
    digest = ensure(image_dir, _quiet, runtimes=runtimes)
    os.chmod(image_dir, 0o700)
    try:
        with pytest.raises(HostUnfit, match=f"chmod o\\+x {image_dir}"):
            use.hold(image_dir, digest)
    finally:
        os.chmod(image_dir, 0o755)


def test_an_installation_without_its_runtime_is_refused(image_dir: str, tmp_path: Path) -> None:
    with pytest.raises(HostUnfit, match=r"main\.js"):
        ensure(image_dir, _quiet, runtimes=str(tmp_path))


@pytest.fixture
def empty_dir() -> Iterator[str]:
    folder = _folder()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.long
def test_builds_are_equal_and_a_killed_one_costs_nothing(empty_dir: str, image_dir: str, runtimes: str) -> None:
    command = f"from sandpost.image.build import ensure; ensure({empty_dir!r}, print, runtimes={runtimes!r})"
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while "unpacking" not in child.stdout.readline():
            assert child.poll() is None
        time.sleep(1.5)
        child.send_signal(signal.SIGKILL)
    assert [name for name in os.listdir(empty_dir) if name.startswith(".building-")]
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.DEVNULL) as other:
        digest = ensure(empty_dir, _quiet, runtimes=runtimes)
        assert other.wait(60) == 0
    assert sorted(os.listdir(empty_dir)) == sorted([".base", ".cache", ".lock", digest])
    assert manifest(empty_dir, digest)["content"] == manifest(image_dir, digest)["content"]


def _folder() -> str:
    """Make an image folder that traversal reaches, with the wheel of the machine's own cache; the caller removes it."""
    # Not below pytest's own folder: every other run of pytest closes that to others.
    path = tempfile.mkdtemp(prefix="sandpost-image-")
    os.chmod(path, 0o755)
    if CACHE.is_dir():
        shutil.copytree(CACHE, os.path.join(path, ".cache"))
    return path


def _quiet(_line: str) -> None:
    pass

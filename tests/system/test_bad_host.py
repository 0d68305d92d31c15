"""A machine that fails the platform: a full disk, a missing program, a start that was killed in the middle of its build."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpost.config import DEFAULTS
from support.followed import texts
from support.http import request
from support.machine import traces
from support.platform import SANDPOST, Platform
from support.waiting import until

HELLO = 'return function (cb) { cb(null, "Hello, world!") }'
COUNT = "let n = 0; return function (cb) { cb(null, ++n) }"


@pytest.fixture
def small_disk() -> Iterator[Platform]:
    """A platform whose state folder is a disk of 100 MiB; images lie elsewhere."""
    made = Platform(pool_size="2")
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "mode=0711,size=100m", "tmpfs", made.state_dir], check=True, timeout=10
    )
    try:
        with made:
            host = made.host
            yield made
        assert not (left := traces(host)), left
    finally:
        subprocess.run(["umount", made.state_dir], check=True, timeout=10)
        made.state_dir.rmdir()


def logs_of(running: Platform) -> str:
    """Return what `/health` says of the logs."""
    said: str = request(running.port, "GET", "/health").json["components"]["logs"]
    return said


def fill(folder: Path) -> Path:
    """Fill the disk of `folder` to the last byte; return the file that does."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass
    disk = os.statvfs(folder)
    assert disk.f_bavail == 0
    return path


def test_on_a_full_disk_calls_go_on_and_what_cannot_be_kept_is_told(small_disk: Platform) -> None:
    running = small_disk
    code = running.call("settled", COUNT).headers["x-sandpost-code"]
    running.set_tenant("settled", limits={"calls": 50})
    filler = fill(running.state_dir)

    # What is known, what was never seen, and who was never seen are served.
    answers = [running.call("settled", COUNT).json for _ in range(10)]
    assert answers == list(range(2, 12))
    assert request(running.port, "GET", f"/settled?webtask_code={code}&key={running.key}").json == 12
    for n in range(10):
        assert running.call("settled", f"return function (cb) {{ cb(null, {n + 1}) }}").json == n + 1
        assert running.call(f"newcomer-{n % 3}", HELLO).body == b'"Hello, world!"'
    # Output that cannot be written costs nobody a call, and `/health` tells.
    loud = "return function (cb) { console.log('on a full disk', 'x'.repeat(6e4)); cb(null, 1) }"
    assert running.call("settled", loud).json == 1
    until(lambda: logs_of(running) == "cannot be written", "/health names it")
    # What would change something is refused as a whole, and says why.
    for method, path, body in (
        ("PUT", "/api/tenants/settled", {"limits": {"calls": 60}}),
        ("PUT", "/api/tenants/late", {}),
        ("POST", "/api/keys", {}),
        ("DELETE", "/api/tenants/settled", None),
    ):
        answer = running.api(method, path, body)
        assert (answer.status, answer.json["reason"]) == (503, "store_full"), answer.body
        assert "make room" in answer.json["message"]
    # Its operator sees it.
    done = running.command("status")
    assert done.returncode == 1
    assert "make room" in done.stdout

    filler.unlink()
    assert running.api("GET", "/api/tenants/settled").json["limits"]["calls"] == 50
    assert running.api("PUT", "/api/tenants/late", {}).status == 201
    assert running.call("settled", COUNT).json == 13
    # What was printed meanwhile waited.
    until(lambda: logs_of(running) == "ok", "/health", within=20)
    assert running.command("status").returncode == 0
    until(
        lambda: [text[:14] for text in texts(running, "tenant/settled", "&f.sandbox=true")] == ["on a full disk"], "it"
    )
    # Nothing that was used meanwhile is lost.
    deadline = time.monotonic() + 20
    while running.api("GET", "/api/tenants/settled/usage").json["total"]["calls"] < 24:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert running.api("GET", "/api/tenants/settled/usage").json["total"]["calls"] == 24


def test_a_kill_on_a_full_disk_loses_no_sandbox(small_disk: Platform) -> None:
    running = small_disk
    assert running.call("settled", COUNT).json == 1
    filler = fill(running.state_dir)
    for part in ("controller", "api", "collector", "egress"):
        for pid in running.pids(part):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while json.loads(running.command("status", "--json").stdout or "{}").get("controller") is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert running.call("settled", COUNT).json == 2
    assert running.call("newcomer", HELLO).status == 200
    filler.unlink()
    assert running.api("PUT", "/api/tenants/late", {}).status == 201


@pytest.mark.parametrize("missing", ["runc", "nft"])
def test_a_program_that_is_not_on_the_path_is_told_with_its_package(tmp_path: Path, missing: str) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in {"runc", "nft", "mmdebstrap"} - {missing}:
        found = shutil.which(name)
        assert found is not None
        (bare / name).symlink_to(found)
    made = Platform()
    try:
        for command in ("serve", "doctor"):
            done = subprocess.run(
                [SANDPOST, command], env={**made.environment(), "PATH": str(bare), "SANDPOST_OCI_RUNTIME": str(bare / "runc")},
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 1
            assert f"apt-get install {'nftables' if missing == 'nft' else missing}" in done.stdout + done.stderr
        # Nothing was begun; with all there, it starts.
        assert not any(made.state_dir.iterdir())
        with made:
            assert made.call("acme", HELLO).status == 200
    finally:
        made.__exit__(None, None, None) if made.process is not None else shutil.rmtree(
            made.state_dir, ignore_errors=True
        )


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_start_that_was_killed_while_it_built_the_image_costs_nothing() -> None:
    top = Path(tempfile.mkdtemp(prefix="sandpost-build-"))
    top.chmod(0o755)
    images = top / "image"
    cache = Path(DEFAULTS["image_dir"]) / ".cache"
    if cache.is_dir():
        # Node's wheel alone, so that the test fetches less.
        shutil.copytree(cache, images / ".cache")
    made = Platform(pool_size="1", image_dir=str(images))
    # A whole build: minutes where others use the machine.
    made.within = 400.0
    try:
        for moment in ("unpacking", "putting"):
            started = subprocess.Popen(
                [SANDPOST, "serve"], env=made.environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )  # fmt: skip
            assert started.stdout is not None
            seen = ""
            for line in started.stdout:
                seen += line
                if moment in line:
                    break
            else:
                raise AssertionError(f"it never came to {moment}:\n{seen}")
            time.sleep(0.5)
            # The machine's power goes: everything that this start began ends at once.
            os.killpg(started.pid, signal.SIGKILL)
            started.wait(10)
            started.stdout.close()
        with made:
            assert made.call("acme", HELLO).body == b'"Hello, world!"'
            assert made.host.image_dir == str(images)
        assert not list(images.glob(".building-*"))
        assert len([path for path in images.iterdir() if not path.name.startswith(".")]) == 1
    finally:
        shutil.rmtree(top)

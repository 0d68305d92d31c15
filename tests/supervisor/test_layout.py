"""Folders belong to the part that writes them, also after an installation moved to another place on the machine."""

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sandpost.config import host as host_file
from sandpost.config import load
from sandpost.model.errors import AlreadyRunning, ConfigError, HostUnfit
from sandpost.model.host import Host
from sandpost.supervisor import layout, outlet
from sandpost.supervisor.aside import Aside
from sandpost.supervisor.release import release
from support.waiting import until


@pytest.fixture
def top() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sandpost-layout-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def make(top: Path, instance: int = 13) -> Host:
    host = host_file.make(load({}), instance=instance, image="", runtime_command="", cgroups=1, cores=2)
    host = msgspec.structs.replace(host, run_dir=str(top / "run"), state_dir=str(top / "state"))
    for folder in (host.run_dir, host.state_dir):
        os.makedirs(folder, exist_ok=True)
    return host


def owner(path: str) -> tuple[int, int, int]:
    found = os.lstat(path)
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def test_each_folder_is_its_parts_own(top: Path) -> None:
    host = make(top)
    layout.make_folders(host)
    users = host.users
    wanted = {
        host.path("records"): (0o700, 0, 0),
        host.path("bundles"): (0o700, 0, 0),
        host.path("fifos"): (0o700, 0, 0),
        host.path("metrics"): (0o770, 0, users.gid),
        host.path("tables"): (0o770, 0, users.gid),
        host.path("api"): (0o750, users.api, users.gid),
        host.state("store"): (0o750, users.api, users.gid),
        host.code_dir: (0o700, users.proxy, users.gid),
        host.logs_dir: (0o750, users.collector, users.gid),
        host.modules_dir: (0o755, 0, users.gid),
        host.modules_lock: (0o600, users.api, users.gid),
        host.modules_ready: (0o755, users.api, users.gid),
    }
    assert {path: owner(path) for path in wanted} == wanted
    # Also where somebody changed it.
    os.chmod(host.code_dir, 0o777)
    os.chown(host.path("records"), 7, 7)
    layout.make_folders(host)
    assert {path: owner(path) for path in wanted} == wanted


def test_what_is_kept_goes_to_the_new_users_and_links_are_not_followed(top: Path) -> None:
    old = make(top, 13)
    layout.make_folders(old)
    kept = Path(old.code_dir, "acme")
    kept.mkdir()
    (kept / "program").write_text("x")
    outside = top / "outside"
    outside.write_text("root's")
    (kept / "link").symlink_to(outside)
    for path in (kept, kept / "program", kept / "link"):
        os.chown(path, old.users.proxy, old.users.gid, follow_symlinks=False)
    new = make(top, 4)
    layout.make_folders(new)
    for path in (kept, kept / "program", kept / "link"):
        assert owner(str(path))[1:] == (new.users.proxy, new.users.gid)
    assert owner(str(outside))[1:] == (0, 0)


def test_a_link_in_a_folders_place_is_not_followed(top: Path) -> None:
    host = make(top)
    target = top / "target"
    target.mkdir()
    os.symlink(target, host.code_dir)
    with pytest.raises(HostUnfit):
        layout.make_folders(host)
    assert owner(str(target))[1:] == (0, 0)


def test_a_run_folder_with_a_mount_is_not_removed(top: Path) -> None:
    host = make(top)
    inside = Path(host.run_dir, "mounted")
    inside.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", inside], check=True, timeout=10)
    try:
        (inside / "precious").write_text("x")
        with pytest.raises(HostUnfit, match="still mounted"):
            layout.remove_run_dir(host.run_dir)
        assert (inside / "precious").exists()
    finally:
        subprocess.run(["umount", inside], check=True, timeout=10)
    layout.remove_run_dir(host.run_dir)
    assert not os.path.exists(host.run_dir)


def test_a_run_folder_is_in_memory_wherever_it_is_and_leaves_no_mount() -> None:
    def kind(path: str) -> str:
        found = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, timeout=10, check=True)
        return found.stdout.strip()

    # /var/tmp outlives a reboot: it is on a disk. /dev/shm is a tmpfs.
    for above, mounted in (("/var/tmp", True), ("/dev/shm", False)):
        folder = tempfile.mkdtemp(prefix="sandpost-layout-", dir=above)
        run_dir = f"{folder}/run"
        for _ in range(2):
            layout.make_run_dir(run_dir)
            assert (kind(run_dir), owner(run_dir)) == ("tmpfs", (0o755, 0, 0))
            assert os.path.ismount(run_dir) == mounted
        with open(f"{run_dir}/held", "w", encoding="ascii"):
            layout.remove_run_dir(run_dir)
        assert os.listdir(folder) == []
        os.rmdir(folder)


def test_work_beside_us_answers_fails_and_dies_in_ways_we_can_tell() -> None:
    def wrong() -> str:
        raise ConfigError("write it so")

    def unfit() -> str:
        raise OSError(28, "No space left on device", "/x")

    def dies() -> str:
        os.kill(os.getpid(), 9)
        return ""

    assert Aside(lambda: "done").result() == "done"
    assert Aside(lambda: None).result() is None
    with pytest.raises(ConfigError, match="write it so"):
        Aside(wrong).result()
    with pytest.raises(HostUnfit, match="/x: No space left"):
        Aside(unfit).result()
    with pytest.raises(HostUnfit, match="ended from outside"):
        Aside(dies).result()


def test_a_lock_is_not_held_by_work_beside_us(top: Path) -> None:
    lock = layout.lock_state(str(top / "state"))
    reader, writer = os.pipe()
    aside = Aside(lambda: os.read(reader, 1).decode(), close=(lock,))
    os.close(lock)

    def free() -> bool:
        try:
            os.close(layout.lock_state(str(top / "state")))
        except AlreadyRunning:
            return False
        return True

    until(free, "the fork lets go of the lock", 1)
    os.write(writer, b"x")
    assert aside.result() == "x"
    os.close(reader)
    os.close(writer)


def test_the_background_log_is_bounded(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlet, "MOST", 1000)
    path = top / "serve.log"
    saved = [os.dup(fd) for fd in (0, 1, 2)]
    try:
        made = outlet.Outlet(str(path))
        made.leave()
        for _ in range(30):
            made.say("x" * 99)
            made.trim()
        os.close(made.log)
    finally:
        for place, fd in enumerate(saved):
            os.dup2(fd, place)
            os.close(fd)
    assert path.stat().st_size <= 1100
    assert Path(f"{path}.1").stat().st_size <= 1100
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(Path(f"{path}.1").stat().st_mode) == 0o600
    lines = (Path(f"{path}.1").read_text() + path.read_text()).splitlines()
    assert set(lines) == {"x" * 99}


def test_a_release_names_the_same_program_the_same() -> None:
    assert release() == release()
    assert release().startswith("0.1.0+")

"""`sandpost serve` as it is typed, in all the ways in which it must not start; each says what to do and leaves nothing."""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sandpost.config import DEFAULTS, load
from sandpost.config import host as host_file
from sandpost.model.errors import HostUnfit
from sandpost.model.host import Host
from sandpost.store import TenantRecord
from sandpost.store.sqlite import SqliteWriter
from sandpost.supervisor import layout, main, start
from sandpost.supervisor.aside import Aside
from support.command import as_nobody
from support.platform import SANDPOST, free_port
from support.waiting import until


@pytest.fixture
def top() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sandpost-serve-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


def serve(top: Path, *flags: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Start where only `flags` and `environ` say something unusual; claims are made apart from others'."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SANDPOST_")}
    ours = {
        "SANDPOST_STATE_DIR": str(top / "state"),
        "SANDPOST_RUN_DIR": str(top / "run"),
        "SANDPOST_LISTEN": f"127.0.0.1:{free_port()}",
        **{f"SANDPOST_{name}": value for name, value in environ.items()},
    }
    done = subprocess.run(
        [SANDPOST, "serve", *flags], env=clean | ours, capture_output=True, text=True, timeout=60, check=False
    )
    assert not list(top.glob("run/?")), "the claim was given back"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_a_state_folder_in_use_says_that_it_runs(top: Path) -> None:
    lock = layout.lock_state(str(top / "state"))
    done = serve(top)
    os.close(lock)
    assert done.returncode == 3
    assert f"running already on {top}/state" in done.stderr


def test_a_port_in_use_is_told(top: Path) -> None:
    with socket.socket() as taken:
        # With SO_REUSEPORT, as another installation's: binding would succeed and share its calls.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = serve(top, "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 1
    assert "is in use" in done.stderr
    assert "ss -ltnp" in done.stderr


def test_a_port_in_use_for_metrics_is_told(top: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = serve(top, "--metrics-listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 1
    assert "is in use" in done.stderr
    assert "set `metrics.listen`" in done.stderr


def test_a_folder_that_holds_other_things_is_not_taken(top: Path) -> None:
    (top / "state").mkdir(mode=0o711)
    (top / "state" / "thesis.txt").write_text("mine")
    done = serve(top)
    assert done.returncode == 1
    assert "files that are not Sandpost's" in done.stderr
    assert [path.name for path in (top / "state").iterdir()] == ["thesis.txt"]


def test_a_folder_of_somebody_else_is_not_taken(top: Path) -> None:
    (top / "state").mkdir(mode=0o711)
    os.chown(top / "state", 1000, 1000)
    done = serve(top)
    assert done.returncode == 1
    assert "must belong to root" in done.stderr


def test_a_folder_that_others_can_write_is_not_taken(top: Path) -> None:
    (top / "state").mkdir()
    (top / "state").chmod(0o777)
    done = serve(top)
    assert done.returncode == 1
    assert "not be writable by others" in done.stderr


def test_a_file_in_the_folders_place_is_told(top: Path) -> None:
    (top / "state").write_text("")
    done = serve(top)
    assert done.returncode == 1
    assert "not a folder" in done.stderr


@pytest.mark.parametrize(("options", "words"), [("ro", "read-only"), ("size=16k", "full")])
def test_a_file_system_that_takes_nothing_is_told(top: Path, options: str, words: str) -> None:
    state = top / "state"
    state.mkdir(mode=0o711)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0711,{options}", "tmpfs", state], check=True, timeout=10)
    try:
        done = serve(top)
    finally:
        subprocess.run(["umount", state], check=True, timeout=10)
    assert done.returncode == 1
    assert words in done.stderr or "MiB free: make room" in done.stderr
    assert "another folder" in done.stderr


def test_a_file_system_that_fills_up_is_told(top: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0711,size=48k", "tmpfs", top], check=True, timeout=10)
    try:
        with pytest.raises(HostUnfit, match="is full: make room"):
            layout.lock_state(str(top))
        assert os.listdir(top) == ["lock"]
    finally:
        subprocess.run(["umount", top], check=True, timeout=10)


def test_a_missing_runc_is_told_with_the_package(top: Path) -> None:
    done = serve(top, OCI_RUNTIME="/nowhere/runc")
    assert done.returncode == 1
    assert "apt-get install runc" in done.stderr


@pytest.mark.parametrize(
    ("mode", "text", "words"),
    [
        (None, "", "no such file"),
        (0o644, "#!/bin/sh\n", "chmod 755"),
        (0o755, "no program at all", "no OCI runtime"),
    ],
)
def test_a_wrong_oci_runtime_is_told_by_its_setting_and_path(
    top: Path, mode: int | None, text: str, words: str
) -> None:
    path = top / "runtime"
    if mode is not None:
        path.write_text(text)
        path.chmod(mode)
    done = serve(top, OCI_RUNTIME=str(path))
    assert done.returncode == 1
    assert f"`oci.runtime` is {path}" in done.stderr
    assert words in done.stderr
    assert "runc is missing" not in done.stderr


def test_a_missing_runsc_stops_the_start_where_it_is_to_make_the_sandboxes(top: Path) -> None:
    done = serve(top, ENGINE_RUNTIME="runsc", OCI_RUNSC="/nowhere/runsc")
    assert done.returncode == 1
    assert "`engine.runtime` is runsc" in done.stderr
    assert "scripts/install --gvisor" in done.stderr


def test_a_missing_runsc_stops_the_start_where_a_tenant_is_set_to_it(top: Path) -> None:
    os.close(layout.lock_state(str(top / "state")))
    store = SqliteWriter(str(top / "state" / "store" / "sandpost.db"))
    store.put_tenant(TenantRecord(name="acme", engine="runsc"))
    store.close()
    done = serve(top, OCI_RUNSC="/nowhere/runsc")
    assert done.returncode == 1
    assert "tenant `acme` is set to the engine runsc" in done.stderr
    assert "scripts/install --gvisor" in done.stderr


def test_a_missing_firewall_program_is_told_with_the_package(top: Path) -> None:
    bare = top / "bin"
    bare.mkdir()
    for name in ("runc", "mmdebstrap"):
        found = shutil.which(name)
        assert found is not None
        (bare / name).symlink_to(found)
    clean = {"PATH": str(bare), "SANDPOST_STATE_DIR": str(top / "state"), "SANDPOST_RUN_DIR": str(top / "run")}
    done = subprocess.run([SANDPOST, "serve"], env=clean, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "apt-get install nftables" in done.stderr
    assert not (top / "run").exists()


def test_wrong_settings_are_told_before_anything_is_made(top: Path) -> None:
    done = serve(top, "--poolsize", "3")
    assert done.returncode == 2
    assert "did you mean `--pool-size`" in done.stderr
    done = serve(top, LISTEN="0.0.0.0:80")
    assert done.returncode == 2
    assert "listen.insecure" in done.stderr
    assert list(top.iterdir()) == []


def test_a_key_too_short_is_told(top: Path) -> None:
    done = serve(top, ADMIN_KEY="tiny-key")
    assert done.returncode == 2
    assert "SANDPOST_ADMIN_KEY" in done.stderr
    assert "tiny-key" not in done.stderr


def test_another_user_is_told_to_be_root(top: Path) -> None:
    seen = subprocess.run(
        [SANDPOST, "serve"],
        env={"PATH": os.environ["PATH"], "SANDPOST_STATE_DIR": str(top / "state")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        # Whatever closes the way for this user is opened as for our own parts.
        preexec_fn=as_nobody,
    )
    assert seen.returncode == 1, seen.stderr
    assert "run as root" in seen.stderr


def test_the_first_key_is_made_by_the_apis_user(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(host: Host, _key: str | None) -> str:
        lines = Path(host.store_path).with_name("probe")
        lines.write_text("the folder is its own")
        return f"{os.getresuid()} {os.getresgid()} {os.getgroups()} {os.path.exists('/etc/passwd')}"

    settings = load({"SANDPOST_WORKERS": "1"})
    made = host_file.make(settings, instance=13, image="none", runtime_command="/usr/sbin/runc", cgroups=1, cores=1)
    # Below a folder that only root passes.
    (top / "closed").mkdir(mode=0o700)
    host = msgspec.structs.replace(made, run_dir=str(top / "run"), state_dir=str(top / "closed/state"))
    for folder in (host.run_dir, host.state_dir):
        os.mkdir(folder)
    layout.make_folders(host)
    monkeypatch.setattr("sandpost.store.first_key", look)
    uid, gid = host.users.api, host.users.gid
    said = Aside(lambda: start._ensure_key(host, None, runs=True)).result()
    assert said == f"{(uid,) * 3} {(gid,) * 3} [] False"


def test_a_stop_while_it_starts_ends_it_and_leaves_nothing(top: Path) -> None:
    # Another build of the image holds this lock: the start waits there.
    images = top / "image"
    images.mkdir()
    with open(images / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ours = {
            "SANDPOST_STATE_DIR": str(top / "state"),
            "SANDPOST_RUN_DIR": str(top / "run"),
            "SANDPOST_IMAGE_DIR": str(images),
            "SANDPOST_LISTEN": f"127.0.0.1:{free_port()}",
        }
        process = subprocess.Popen([SANDPOST, "serve"], env=os.environ | ours, stderr=subprocess.PIPE, text=True)
        try:
            until(lambda: list(top.glob("run/?/metrics")), "it has come to the image", 20)
            process.send_signal(signal.SIGTERM)
            _, complaints = process.communicate(timeout=10)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0
    assert "Traceback" not in complaints
    assert not list(top.glob("run/?"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_build_of_the_image_ends_with_the_start_and_leaves_nothing(
    top: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An index that takes connections and never answers: the build's first step waits for it.
    with socket.create_server(("127.0.0.1", 0)) as index:
        index.settimeout(20)
        taken = f"127.0.0.1:{index.getsockname()[1]}"
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://{taken}/")
        ours = {
            "SANDPOST_STATE_DIR": str(top / "state"),
            "SANDPOST_RUN_DIR": str(top / "run"),
            "SANDPOST_IMAGE_DIR": str(top / "image"),
            "SANDPOST_LISTEN": f"127.0.0.1:{free_port()}",
        }
        # As a terminal's: who types Ctrl-C there sends it to the whole group.
        process = subprocess.Popen(
            [SANDPOST, "serve"], env=os.environ | ours, stderr=subprocess.PIPE, text=True, process_group=0
        )
        try:
            asking, _ = index.accept()
            with asking:
                assert building(top)
                assert list(top.glob("image/.building-*"))
                (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
                complaints = process.communicate(timeout=30)[1]
                if number == signal.SIGKILL:
                    until(lambda: not building(top), "the build has ended")
                assert not building(top)
                assert not list(top.glob("image/.building-*"))
        finally:
            process.kill()
            process.wait()
            for pid in building(top):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if number == signal.SIGKILL:
            # The next start takes the place, and gives it back as it finds that it cannot listen.
            assert serve(top, "--listen", taken, IMAGE_DIR=str(top / "image")).returncode == 1
            assert not building(top)
        else:
            assert process.returncode == 0
            assert "Traceback" not in complaints
            assert not list(top.glob("run/?"))


def building(top: Path) -> list[int]:
    """Pids of the processes of a start, beside itself, and of what a build runs."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if f"{top}/image".encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                found.append(int(name))
    return found


def test_what_a_build_mounts_goes_with_it_however_it_ends(top: Path) -> None:
    program = f"""
import subprocess, time
from sandpost.image import build
from sandpost.supervisor import start
from sandpost.supervisor.aside import Aside

def ensure(image_dir, progress, coreclr):
    subprocess.run(["mount", "-t", "tmpfs", "mine", image_dir], check=True)
    progress("mounted")
    time.sleep(60)

build.ensure = ensure
settings = {{"image_dir": {str(top)!r}, "image.coreclr": False}}
Aside(lambda: start._ensure_image(settings, lambda line: print(line, flush=True))).result()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "mounted\n"
            assert not os.path.ismount(top)
        finally:
            process.kill()
            subprocess.run(["umount", "--quiet", top], check=False, timeout=10)


def test_a_stop_in_the_first_moment_is_noted() -> None:
    # Sent before the supervisor's modules are imported: noted, and acted on when it is known what runs.
    program = """
import os, signal, sys
from sandpost.supervisor.wish import WISH, Stopped
WISH.listen()
os.kill(os.getpid(), signal.SIGTERM)
assert WISH.asked
try:
    with WISH.breaking_off():
        sys.exit(1)
except Stopped:
    sys.exit(7)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == 7


def test_a_reload_in_the_first_moment_is_noted_and_ends_nothing() -> None:
    program = """
import os, signal, sys
from sandpost.supervisor.wish import WISH
WISH.listen()
os.kill(os.getpid(), signal.SIGHUP)
sys.exit(7 if WISH.asked_reload and not WISH.asked else 1)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == 7


def test_detached_it_tells_what_went_wrong_on_the_terminal(top: Path) -> None:
    (top / "state").mkdir(mode=0o711)
    (top / "state" / "thesis.txt").write_text("mine")
    done = serve(top, "--detach")
    assert done.returncode == 1
    assert "files that are not Sandpost's" in done.stderr


def test_help_lists_every_setting(top: Path) -> None:
    done = serve(top, "--help")
    assert done.returncode == 0
    assert "--limits-blocked-after" in done.stdout
    assert "SANDPOST_ADMIN_KEY" in done.stdout
    assert "--admin-key " not in done.stdout


def test_options_are_split_from_settings() -> None:
    options = main.parse(["--listen-insecure", "--config", "/x", "--pool-size", "--detach", "--queue=5", "--detach"])
    assert options.config == "/x"
    assert options.flags == ("--listen-insecure", "--pool-size", "--detach", "--queue=5")
    assert options.detach


def test_the_lock_outlives_nobody(top: Path) -> None:
    fd = layout.lock_state(str(top / "state"))
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(fd)
    os.close(layout.lock_state(str(top / "state")))


def test_the_images_folder_in_the_state_folder_is_ours(top: Path) -> None:
    # `scripts/test` may have built the image before the first start.
    assert DEFAULTS["image_dir"] == DEFAULTS["state_dir"] + "/image"
    (top / "state" / "image").mkdir(parents=True)
    (top / "state").chmod(0o711)
    os.close(layout.lock_state(str(top / "state")))

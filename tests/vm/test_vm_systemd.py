"""deploy/systemd/sandpost.service, as docs/operation.md says to use it."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandpost.model.host import Host, load
from support.http import Answer, request
from support.machine import traces

UNIT = Path(__file__).parents[2] / "deploy/systemd/sandpost.service"
UNITS = Path("/etc/systemd/system")
CONFIG = Path("/etc/sandpost.toml")
GROUPS = Path("/sys/fs/cgroup")
KEY = "test-key-of-the-machine"
COUNT = "let n = 0; return function (cb) { cb(null, ++n) }"
PATIENCE = 120.0


class Service:
    """The one installation of this machine, run by systemd."""

    port = 8721

    def call(self, tenant: str) -> Answer:
        return request(self.port, "POST", f"/{tenant}?key={KEY}", COUNT, timeout=60)

    def wait_until_healthy(self) -> None:
        until(lambda: request(self.port, "GET", "/health").status == 200)

    def wait_until_taken_over(self) -> None:
        """Wait until a `serve` that was started again has adopted what it found."""
        until(lambda: '"msg":"ready"' in journal(f"_PID={shown('MainPID')}"))

    def kill_main_process(self) -> None:
        """Kill it, and wait until systemd has started the next one: until then it names the one that is dead."""
        before = shown("NRestarts")
        systemctl("kill", "--signal=KILL", "--kill-whom=main", "sandpost")
        until(lambda: shown("NRestarts") != before and shown("ActiveState") == "active")

    @property
    def host(self) -> Host:
        [path] = Path("/run/sandpost").glob("?/host.json")
        return load(str(path))

    def parts(self) -> set[int]:
        """Pids of the service's processes that are parts: neither `serve` itself nor a start of a sandbox."""
        listed = Path(GROUPS, shown("ControlGroup")[1:], "cgroup.procs").read_text().split()
        host_file = self.host.path("host.json").encode()
        return {int(pid) for pid in listed if host_file in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")}

    def limits_of(self, tenant: str) -> dict[str, str]:
        """What the files of the group of the tenant's sandbox say; it stands beside systemd's own slices."""
        records = [json.loads(path.read_bytes()) for path in Path(self.host.path("records")).glob("*.json")]
        [group] = [record["group_id"] for record in records if record.get("tenant") == tenant]
        names = ("memory.max", "memory.swap.max", "cpu.max", "pids.max")
        folder = Path(GROUPS, self.host.cgroup_parent, f"t-{group}")
        return {name: (folder / name).read_text().strip() for name in names}


def systemctl(*arguments: str) -> str:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(name: str) -> str:
    return systemctl("show", "--property", name, "--value", "sandpost.service").strip()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return
        assert time.monotonic() < deadline, journal()
        time.sleep(0.1)


def journal(*matches: str) -> str:
    command = ["journalctl", "--unit=sandpost", "--lines=100", *matches]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    shutil.copy(UNIT, UNITS)
    extra = UNITS / "sandpost.service.d"
    extra.mkdir()
    (extra / "key.conf").write_text(f"[Service]\nEnvironment=SANDPOST_ADMIN_KEY={KEY}\n")
    CONFIG.write_text("pool_size = 2\n")
    systemctl("daemon-reload")
    systemctl("start", "sandpost")
    made = Service()
    made.wait_until_healthy()
    yield made
    systemctl("stop", "sandpost")
    # Other tests' installations would read it too.
    CONFIG.unlink()


def test_parts_stand_in_the_service_and_sandboxes_outside(service: Service) -> None:
    assert service.call("placed").json == 1
    assert shown("ControlGroup") == "/system.slice/sandpost.service"
    assert len(service.parts()) >= 4
    assert shown("OOMPolicy") == "continue"
    assert service.limits_of("placed") == {
        "memory.max": f"{128 << 20}",
        "memory.swap.max": "0",
        "cpu.max": "100000 100000",
        "pids.max": "64",
    }


def test_a_killed_serve_is_started_again_and_adopts_all(service: Service) -> None:
    assert service.call("adopted").json == 1
    parts = service.parts()
    service.kill_main_process()
    service.wait_until_taken_over()
    assert service.call("adopted").json == 2
    assert service.parts() == parts


def test_a_reload_at_once_after_a_start_ends_nothing(service: Service) -> None:
    assert service.call("hurried").json == 1
    service.kill_main_process()
    systemctl("reload", "sandpost")
    service.wait_until_taken_over()
    assert service.call("hurried").json == 2
    assert shown("ActiveState") == "active"


def test_systemd_about_its_own_groups_changes_nothing_of_sandboxes(service: Service) -> None:
    assert service.call("left-alone").json == 1
    seen = service.limits_of("left-alone")
    systemctl("daemon-reload")
    command = ["systemd-run", "--quiet", "--wait", "--property=MemoryMax=64M", "--property=CPUWeight=50"]
    subprocess.run([*command, "--property=TasksMax=5", "/bin/true"], check=True, timeout=60)
    systemctl("daemon-reload")
    assert service.limits_of("left-alone") == seen
    assert {"cpu", "memory", "pids"} <= set((GROUPS / "cgroup.subtree_control").read_text().split())
    assert service.call("left-alone").json == 2


def test_a_reload_takes_up_limits_under_a_running_sandbox(service: Service) -> None:
    assert service.call("reloaded").json == 1
    CONFIG.write_text('pool_size = 2\n[limits]\nmemory = "160MiB"\n')
    systemctl("reload", "sandpost")
    until(lambda: service.limits_of("reloaded")["memory.max"] == f"{160 << 20}")
    assert service.call("reloaded").json == 2


def test_a_stop_leaves_nothing(service: Service) -> None:
    host = service.host
    assert service.call("stopped").json == 1
    systemctl("stop", "sandpost")
    assert (shown("ActiveState"), shown("Result")) == ("inactive", "success")
    assert not (left := traces(host)), f"left behind: {left}"
    assert not os.path.exists(GROUPS / "system.slice/sandpost.service")
    said = journal()
    assert not re.search(r"Traceback|left behind", said), said[-20_000:]

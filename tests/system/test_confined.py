"""The running platform's own processes: what each of them is left with."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpost.walls.own import root
from support.http import request
from support.platform import Platform, free_port
from support.waiting import until

HELLO = 'return function (cb) { cb(null, "Hello, world!") }'
UNPRIVILEGED = ("proxy", "api", "collector", "egress")


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    with Platform(pool_size="1", workers="2") as made:
        yield made


def status(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


def test_parts_are_confined_while_they_serve(running: Platform) -> None:
    assert running.call("acme", HELLO).body == b'"Hello, world!"'
    assert running.command("status").returncode == 0
    for part in UNPRIVILEGED:
        pids = running.pids(part)
        assert pids
        for pid in pids:
            seen = status(pid)
            assert {seen[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
            assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
            # Not its own user's: it is not dumpable, and no sibling may look in.
            assert os.stat(f"/proc/{pid}/mem").st_uid == 0
            threads = os.listdir(f"/proc/{pid}/task")
            assert {status_of["Seccomp"] for status_of in map(status, map(int, threads))} == {"2"}


def test_a_part_sees_no_files_but_those_it_needs(running: Platform) -> None:
    host = running.host
    own = {
        "proxy": {host.code_dir, host.metrics_dir, host.path("tables"), host.run_dir, host.state("store")},
        "api": {
            host.state("store"),
            host.modules_dir,
            host.logs_dir,
            host.metrics_dir,
            host.path("api"),
            host.run_dir,
        },
        "collector": {host.logs_dir, host.spool_dir, host.metrics_dir, host.run_dir},
        "egress": {host.metrics_dir, host.run_dir},
    }
    for part, wanted in own.items():
        for pid in running.pids(part):
            lines = [line.split(" ") for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
            flags = {line[4]: set(line[5].split(",")) for line in lines}
            ours = {path for path in flags if path.startswith((f"{host.state_dir}/", host.run_dir))}
            assert ours == wanted
            assert not {"/proc", "/sys", "/tmp", "/run", "/home", "/dev"} & flags.keys()
            for path, found in flags.items():
                assert "nosuid" in found
                assert "ro" in found or "noexec" in found, path


def test_parts_of_root_hold_no_capability_that_they_never_use(running: Platform) -> None:
    unused = sum(1 << number for number in root.UNUSED)
    assert int(status(os.getpid())["CapEff"], 16) & unused
    for part in ("supervisor", "controller"):
        for pid in running.pids(part):
            seen = status(pid)
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(seen[name], 16) & unused == 0


def test_figures_are_served_at_a_name_that_the_api_cannot_look_up() -> None:
    with Platform(pool_size="1", workers="1", metrics_listen=f"localhost:{free_port()}") as named:
        port = int(named.settings["metrics_listen"].rpartition(":")[2])

        def served() -> bool:
            with contextlib.suppress(ConnectionRefusedError):
                return b"sandpost_parts" in request(port, "GET", "/metrics").body
            return False

        until(served, "figures are served")

"""`sandpost selftest` as an operator runs it: a table, JSON, an exit code, nothing left; and it fails without a wall."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandpost.selftest.host import Look
from support.lab import until
from support.platform import Platform, platform
from support.weakened import weakened

WALLS = {
    "the limit of processes": (
        "walls/cgroups/v1.py",
        'files.write(self._file("pids", group, "pids.max"), limits.pids)',
        "pass",
        "fork_bomb",
    ),
    "the quota of CPU time": (
        "walls/cgroups/v1.py",
        'files.write(self._file("cpu", group, "cpu.cfs_quota_us"), quota)',
        "pass",
        "worker_threads",
    ),
    "the size of /tmp": ("walls/oci_config.py", 'f"size={limits.tmp}", ', "", "tmp_bytes"),
    "the inodes of /tmp": ("walls/oci_config.py", ', f"nr_inodes={limits.tmp_inodes}"', "", "inodes"),
    "the limit of open files": (
        "walls/oci_config.py",
        '_rlimit("RLIMIT_NOFILE", limits.files)',
        '_rlimit("RLIMIT_NOFILE", 4096)',
        "descriptors",
    ),
    "a /proc of its own": (
        "walls/oci_config.py",
        '_mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"])',
        '_mount("/proc", "rbind", "/proc", ["rbind"])',
        "other_processes",
    ),
    "the namespace of queues": ("walls/oci_config.py", '            {"type": "ipc"},\n', "", "namespaces"),
    "the namespace of control groups": ("walls/oci_config.py", '            {"type": "cgroup"},\n', "", "control_groups"),
    "no capabilities": ("walls/oci_config.py", '"capabilities": {name: []', '"capabilities": {name: ["CAP_NET_RAW"]', "privileges"),
    "the filter of system calls": (
        "walls/oci_config.py",
        '"seccomp": walls.seccomp,',
        '"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},',
        "system_calls",
    ),
    "masked paths": ("walls/oci_config.py", '"maskedPaths": list(procfs.MASKED)', '"maskedPaths": []', "proc_secrets"),
    "the devices": (
        "walls/oci_config.py",
        '_mount("/dev", "bind", f"{rootfs}/dev", ["bind", "ro", "nosuid", "noexec"])',
        '_mount("/dev", "rbind", "/dev", ["rbind", "nosuid", "noexec"])',
        "devices",
    ),
    "the watch of blocked loops": (
        "controller/suspicion.py",
        'self._desk.end(sandbox, "blocked", _blocked(sandbox, suspect, "while its CPU time grew"), now)',
        "pass",
        "endless_loop",
    ),
    "the bound of output": ("collector/drain.py", "tenancy.keep.spend(len(one.text) + RECORD_COST)", "pass", "output_flood"),
    "what a record costs": (
        "collector/drain.py",
        "tenancy.keep.spend(len(one.text) + RECORD_COST)",
        "tenancy.keep.spend(len(one.text))",
        "small_lines",
    ),
    "plain text": ("logs/records.py", "msg=safe_text(said.text)", 'msg=said.text.decode("utf-8", "replace")', "binary_output"),
    "the limit of bodies": ("proxy/call.py", "self.expect_body(self.limits.body)", "self.expect_body(1 << 40)", "endless_body"),
    "the bound of interim heads": ("proxy/exchange.py", "if self._interims > MAX_INTERIMS:", "if self._interims > 1 << 30:", "odd_answers"),
    "the limit of programs": ("proxy/gathering.py", "self._limit = settings.limits.code", "self._limit = 1 << 30", "endless_program"),
    "a tenant's own key": ("proxy/access.py", "check_call(self._reader.key(key_digest(key)), name, tenant)", "pass", "another_tenants_key"),
}  # fmt: skip


@pytest.fixture(scope="module")
def running() -> Iterator[Platform]:
    with platform(pool_size="4") as started:
        yield started


def test_it_shows_a_table_and_leaves_no_tenant(running: Platform) -> None:
    done = running.command("selftest", "--case", "exit", "--case", "smuggling", "--case", "inodes")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["PART", "CASE", "VERDICT", "SEEN", "TIME", "NEIGHBOUR", "P99"]
    assert [line.split()[0] for line in lines[1:4]] == ["resources", "exchange", "exchange"]
    assert lines[-1] == "3 held, 0 broken, 0 could not be tried; on runc"
    assert running.api("GET", "/api/tenants").json["tenants"] == []
    assert [key["label"] for key in running.api("GET", "/api/keys").json["keys"]] == ["SANDPOST_ADMIN_KEY"]


def test_json_has_every_verdict_with_the_neighbours_figures(running: Platform) -> None:
    done = running.command("selftest", "--json", "--case", "callback_twice")
    [verdict] = json.loads(done.stdout)
    assert (verdict["name"], verdict["outcome"], verdict["seen"]) == ("callback_twice", "held", "served")
    assert verdict["engine"] == "runc"
    assert verdict["neighbour"]["calls"] > 0
    assert verdict["neighbour"]["failed"] == 0


def test_a_case_that_is_not_there_is_a_usage_error(running: Platform) -> None:
    done = running.command("selftest", "--case", "nothing")
    assert done.returncode == 2
    assert "there is no case `nothing`" in done.stderr


def test_from_afar_it_says_what_it_could_not_try(running: Platform) -> None:
    done = running.command(
        "selftest", "--url", f"http://127.0.0.1:{running.port}", "--case", "namespaces", "--case", "exit",
        environment={"SANDPOST_KEY": running.key},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it needs a look at the host" in done.stdout
    assert "500 exit; log unseen; host unseen" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 held, 0 broken, 1 could not be tried; on runc"


def test_who_else_is_in_a_sandboxs_namespaces_is_found(running: Platform) -> None:
    assert running.call("alone", "return function (cb) { cb(null, 1) }").status == 200
    [mine] = [record for record in running.records() if record["tenant"] == "alone"]
    folder = Path(f"/proc/{mine['pid']}/ns")
    namespaces = {kind: os.readlink(folder / kind) for kind in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")}
    look = Look(running.host)
    assert look.strangers(namespaces, mine["sandbox_id"]) == []
    with subprocess.Popen(["nsenter", f"--uts={folder}/uts", "sleep", "60"]) as other:
        try:
            assert until(lambda: look.strangers(namespaces, mine["sandbox_id"]) == [f"uts of process {other.pid}"])
        finally:
            other.kill()


@pytest.mark.long
def test_what_is_left_behind_is_found(running: Platform) -> None:
    stray = running.host.path("bundles", "left")
    os.mkdir(stray)
    try:
        done = running.command("selftest", "--case", "exit")
    finally:
        os.rmdir(stray)
    assert done.returncode == 1
    assert "left behind: bundles left" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("wall", WALLS)
def test_without_a_wall_its_case_fails(wall: str) -> None:
    file, old, new, case = WALLS[wall]
    with weakened(file, old, new) as program, platform(program=program, pool_size="2") as running:
        done = running.command("selftest", "--json", "--case", case)
        [verdict] = json.loads(done.stdout)
        assert verdict["outcome"] == "broken", verdict
        assert done.returncode == 1

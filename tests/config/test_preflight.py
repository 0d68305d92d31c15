"""Each thing that a machine may lack is told in a sentence that says how to get it."""

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.config import load, machine, names, preflight
from sandpost.config.ids import Ids
from sandpost.config.names import Names
from sandpost.config.preflight import CONTROLLERS, GiB, Machine, MiB, StateFolder
from sandpost.kernel import program
from sandpost.kernel.pids import Limit
from sandpost.model.errors import HostUnfit
from sandpost.model.inside import DEVICES

STATE = "/var/lib/sandpost"


def state(**changes: Any) -> StateFolder:
    values: dict[str, Any] = {
        "path": STATE,
        "found": STATE,
        "mode": stat.S_IFDIR | 0o711,
        "uid": 0,
        "read_only": False,
        "writable": True,
        "foreign": "",
        **changes,
    }
    return StateFolder(**values)


def devices(**changes: tuple[int, int]) -> dict[str, tuple[int, int]]:
    minors = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
    good = {name: (stat.S_IFCHR | 0o666, os.makedev(1, minor)) for name, minor in minors.items()}
    return good | changes


DEBIANS = "runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev\ngo: go1.19.8\nlibseccomp: 2.5.4\n"
FILTERS = "kill_process kill_thread trap errno user_notif trace log allow"


def good(**changes: Any) -> Machine:
    values: dict[str, Any] = {
        "uid": 0,
        "kernel": "6.1.0-18-amd64",
        "architecture": "x86_64",
        "cgroup1": frozenset(),
        "cgroup2": CONTROLLERS | {"io"},
        "binaries": {"nft": "/usr/sbin/nft", "mmdebstrap": "/usr/bin/mmdebstrap"},
        "runtime": "/usr/sbin/runc",
        "runtime_given": "runc",
        "runtime_mode": stat.S_IFREG | 0o755,
        "runtime_version": "runc version 1.3.4\nspec: 1.2.1\ngo: go1.25.3\nlibseccomp: 2.5.4\n",
        "filters": frozenset(FILTERS.split()),
        "nft_error": "",
        "namespaces": dict.fromkeys(("user", "pid", "net", "mnt", "ipc", "uts", "cgroup"), 15000),
        "memory": 8 * GiB,
        "memory_available": 6 * GiB,
        "swap": 0,
        "devices": devices(),
        "state": state(),
        "disk_free": {STATE: 50 * GiB},
        "tasks": (Limit("kernel.pid_max", 4194304, 300, "`sysctl`"),),
        "open_files": 1048576,
        "lowers_oom_score": True,
        "resolvers": {"192.0.2.53:53": ""},
        "connections_room": 262144,
        "connections": 256,
        "connection_rate": 50,
        "landlock": 2,
        "user_ids": Ids(0x70000000, 1 << 20),
        **changes,
    }
    return Machine(**values)


def test_a_good_machine_is_told_so() -> None:
    findings = preflight.judge(good())
    assert {finding.level for finding in findings} == {"ok"}
    assert len({finding.name for finding in findings}) == len(findings)
    preflight.require(findings)


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"uid": 1000}, "root", ["user 1000", "sudo"]),
        ({"kernel": "4.19.0"}, "kernel", ["4.19.0", "5.10"]),
        ({"kernel": "strange"}, "kernel", ["strange"]),
        ({"architecture": "aarch64"}, "kernel", ["aarch64", "x86_64"]),
        ({"cgroup2": frozenset({"cpu", "pids"})}, "cgroups", ["memory", "cgroup_enable=memory"]),
        ({"cgroup2": frozenset({"cpu"}), "cgroup1": frozenset({"memory", "pids"})}, "cgroups", ["one version"]),
        ({"engine": "runsc"}, "gvisor", ["engine.runtime", "scripts/install --gvisor", "oci.runsc"]),
        (
            {"engine": "runsc", "runsc": "/bin/runsc", "runsc_version": "runsc version VERSION_MISSING"},
            "gvisor",
            ["--gvisor"],
        ),
        (
            {"engine": "runsc", "runsc": "/bin/runsc", "runsc_version": "runsc version release-20221107.0"},
            "gvisor",
            ["20221107", "20260905", "--gvisor"],
        ),
        ({"runtime": "", "runtime_mode": 0}, "runtime", ["runc is missing", "apt-get install runc", "oci.runtime"]),
        (
            {"runtime": "", "runtime_mode": 0, "runtime_given": "rucn"},
            "runtime",
            ["`oci.runtime` is rucn", "no folder of PATH", "apt-get install runc"],
        ),
        (
            {"runtime": "", "runtime_mode": 0, "runtime_given": "/opt/rucn"},
            "runtime",
            ["`oci.runtime` is /opt/rucn", "no such file", "apt-get install runc"],
        ),
        (
            {"runtime": "", "runtime_mode": stat.S_IFREG | 0o644, "runtime_given": "/opt/runc"},
            "runtime",
            ["`oci.runtime` is /opt/runc", "chmod 755 /opt/runc"],
        ),
        (
            {"runtime": "", "runtime_mode": stat.S_IFDIR | 0o755, "runtime_given": "/opt"},
            "runtime",
            ["`oci.runtime` is /opt", "not a file", "apt-get install runc"],
        ),
        ({"runtime_version": "runc version 1.0.0\nspec: 1.0.2\nlibseccomp: 2.5.4"}, "runtime", ["1.0.0", "1.1"]),
        ({"runtime_version": "hello"}, "runtime", ["/usr/sbin/runc --version", "reinstall runc"]),
        (
            {"runtime": "/usr/bin/git", "runtime_given": "/usr/bin/git", "runtime_version": "git version 2.39.5"},
            "runtime",
            ["`oci.runtime` is /usr/bin/git", "no OCI runtime", "apt-get install runc"],
        ),
        ({"swap": GiB, "swap_counted": False}, "swap", ["1.0 GiB of swap", "swapaccount=1", "swapoff -a"]),
        ({"filters": frozenset()}, "seccomp", ["6.1.0-18-amd64", "CONFIG_SECCOMP_FILTER", "Debian's kernel"]),
        (
            {"runtime_version": "runc version 1.3.4\nspec: 1.2.1"},
            "seccomp",
            ["/usr/sbin/runc", "without seccomp", "apt-get install"],
        ),
        (
            {"runtime_version": "runc version 1.3.4\nspec: 1.2.1\nlibseccomp: 2.4.1"},
            "seccomp",
            ["libseccomp 2.4.1", "2.5"],
        ),
        ({"binaries": {"nft": "/usr/sbin/nft"}}, "mmdebstrap", ["apt-get install mmdebstrap"]),
        ({"binaries": {"mmdebstrap": "/usr/bin/mmdebstrap"}}, "nft", ["apt-get install nftables"]),
        ({"firewall_lacks": ("limits of rate",)}, "nftables", ["limits of rate (nft_limit)", "load those modules"]),
        ({"nft_error": "Operation not permitted"}, "nftables", ["Operation not permitted", "CAP_NET_ADMIN"]),
        ({"namespaces": {"user": 0, "pid": 9, "net": 9, "mnt": 9}}, "namespaces", ["user", "sysctl -w user.max_user"]),
        ({"namespaces": {"pid": 999, "net": 999, "mnt": 999}}, "namespaces", ["no user namespaces"]),
        (
            {
                "user_ids_taken": (
                    Ids(100000, 65536, "stand in /etc/subuid for `bob`"),
                    Ids(0x70000000, 9, "stand in /etc/subgid for `eve`"),
                )
            },
            "user ids",
            [
                "`uids.base` 1879048192 and `network.block` mean the user ids 1879048192 to 1880096767",
                "of which 1879048192 to 1879048200 stand in /etc/subgid for `eve`",
                "set uids.base to 2146435072,",
            ],
        ),
        (
            {"user_ids_taken": (Ids(0x70000000 + (1 << 20) - 1, 1, "is the user `svc`"),)},
            "user ids",
            ["of which 1880096767 is the user `svc`", "set uids.base to"],
        ),
        (
            {"user_ids_there": (Ids(0, 1000), Ids(100000, 1 << 21))},
            "user ids",
            [
                "in this container there are 0 to 999, 100000 to 2197151 alone",
                "set uids.base to 1148576",
                "give the container more",
            ],
        ),
        (
            {"user_ids_there": (Ids(0, 65536),)},
            "user ids",
            ["in this container there are 0 to 65535 alone", "choose a smaller network.block"],
        ),
        (
            {
                "tasks": (
                    Limit("kernel.pid_max", 4194304, 300, "`sysctl`"),
                    Limit("pids.max of x", 100, 40, "raise it"),
                ),
                "runtime_version": "",
            },
            "pids",
            ["40 of 100 processes and threads are there (pids.max of x)", "takes 64: raise it"],
        ),
        ({"unreadable": ("/opt/sandpost/src",)}, "program", ["/opt/sandpost/src", "chmod -R go+rX"]),
        (
            {"devices": devices(null=(stat.S_IFREG | 0o644, 0))},
            "devices",
            ["/dev/null is not the device", "rm /dev/null", "mknod -m 666 /dev/null c 1 3"],
        ),
        (
            {"devices": devices(zero=(stat.S_IFCHR | 0o666, os.makedev(1, 3)))},
            "devices",
            ["/dev/zero is not the device", "mknod -m 666 /dev/zero c 1 5"],
        ),
        (
            {"devices": devices(full=(0, 0), urandom=(stat.S_IFCHR | 0o600, os.makedev(1, 9)))},
            "devices",
            ["there is no /dev/full", "mknod -m 666 /dev/full c 1 7", "/dev/urandom", "mode 0600", "chmod 666 /dev/ur"],
        ),
        ({"memory": 256 * MiB}, "memory", ["512 MiB"]),
        ({"state": state(uid=1000)}, "state", [STATE, "user 1000", f"chown root {STATE}", "state_dir"]),
        ({"state": state(mode=stat.S_IFDIR | 0o775)}, "state", [STATE, "writable by others", f"chmod 711 {STATE}"]),
        ({"state": state(mode=stat.S_IFREG | 0o644)}, "state", [STATE, "not a folder", "state_dir"]),
        ({"state": state(read_only=True, writable=False)}, "state", [STATE, "read-only file system", "remount"]),
        ({"state": state(writable=False)}, "state", [STATE, "not even by root", f"lsattr -d {STATE}", "state_dir"]),
        ({"state": state(foreign="x.txt")}, "state", [STATE, "not Sandpost's (x.txt)", "state_dir"]),
        (
            {"state": state(found="/var", read_only=True, writable=False)},
            "state",
            ["/var is on a read-only", "remount"],
        ),
        ({"disk_free": {"/var": 10 * MiB}}, "disk", ["/var", "10 MiB", "make room"]),
        ({"port_error": "127.0.0.1:1 is in use: look"}, "port", ["in use"]),
    ],
)
def test_what_is_missing_stops_the_start_with_what_to_do(changes: dict[str, Any], name: str, words: list[str]) -> None:
    findings = preflight.judge(good(**changes))
    fatal = [finding for finding in findings if finding.level == "fatal"]
    assert [finding.name for finding in fatal] == [name]
    for word in words:
        assert word in fatal[0].message
    with pytest.raises(HostUnfit) as caught:
        preflight.require(findings)
    assert caught.value.message == fatal[0].message


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"runtime_version": DEBIANS}, "runtime"),
        ({"runsc": "/bin/runsc", "runsc_version": "runsc version release-20221107.0"}, "gvisor"),
        ({"memory_available": 100 * MiB}, "memory"),
        ({"disk_free": {"/var": 500 * MiB}}, "disk"),
        ({"tasks": (Limit("kernel.pid_max", 4096, 300, "`sysctl`"),)}, "pids"),
        ({"open_files": 1024}, "files"),
        ({"lowers_oom_score": False}, "oom"),
        ({"resolvers": {}}, "resolvers"),
        ({"resolvers": {"192.0.2.53:53": "", "[2001:db8::53]:53": "Network is unreachable"}}, "resolvers"),
        ({"landlock": 0}, "landlock"),
        ({"settled": True, "user_ids_taken": (Ids(0x70000000, 9, "stand in /etc/subuid for `eve`"),)}, "user ids"),
    ],
)
def test_what_is_merely_bad_is_a_warning(changes: dict[str, Any], name: str) -> None:
    findings = preflight.judge(good(**changes))
    assert [finding.name for finding in findings if finding.level != "ok"] == [name]
    preflight.require(findings)


def test_the_fixes_that_a_runtime_lacks_are_named_with_the_way_to_them() -> None:
    (said,) = [one.message for one in preflight.judge(good(runtime_version=DEBIANS)) if one.name == "runtime"]
    assert said == (
        "/usr/sbin/runc 1.1.5 works, without the fixes of CVE-2025-31133, CVE-2025-52565, CVE-2025-52881: "
        "`scripts/install --build-runc` makes a current one"
    )


def test_the_runc_that_was_built_stands_before_the_one_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "source_folder", lambda: str(tmp_path / "src"))
    built = tmp_path / ".tools" / "bin" / "runc"
    assert machine.oci_runtime() == (shutil.which("runc") or "")
    built.parent.mkdir(parents=True)
    shutil.copy("/bin/true", built)
    assert machine.oci_runtime() == str(built)
    assert machine.oci_runtime("/bin/true") == "/bin/true"
    assert machine.oci_runtime("/nowhere/runc") == ""


def test_runsc_alone_is_enough_where_it_makes_the_sandboxes() -> None:
    built = "runsc version 20260905035102-160fafc42237\nspec: 1.2.1"
    findings = preflight.judge(
        good(engine="runsc", runtime="", runtime_version="", runsc="/x/runsc", runsc_version=built)
    )
    assert {finding.level for finding in findings} == {"ok"}
    assert preflight.is_good_runsc(built)


def test_several_lacks_are_told_at_once() -> None:
    with pytest.raises(HostUnfit) as caught:
        preflight.require(preflight.judge(good(uid=5, runtime="", memory=1)))
    assert len(caught.value.message.splitlines()) == 3


controllers = st.frozensets(st.sampled_from(["cpu", "memory", "pids", "io", "cpuset", "freezer"]))


@given(controllers, controllers)
def test_a_cgroup_version_is_chosen_only_where_it_has_every_controller(
    first: frozenset[str], second: frozenset[str]
) -> None:
    version = preflight.cgroup_version(good(cgroup1=first, cgroup2=second))
    if version == 2:
        assert second >= CONTROLLERS
    elif version == 1:
        assert first >= CONTROLLERS
        assert not second >= CONTROLLERS
    else:
        assert not second >= CONTROLLERS
        assert not first >= CONTROLLERS


def test_this_machine_is_read() -> None:
    seen = machine.read(load({}))
    assert seen.memory > seen.memory_available > 0
    assert {one.name for one in seen.tasks} >= {"kernel.pid_max", "kernel.threads-max"}
    assert all(one.most > 300 for one in seen.tasks)
    assert seen.binaries["nft"].endswith("/nft")
    assert preflight.cgroup_version(seen) in {1, 2}
    preflight.require(preflight.judge(seen))


def test_a_resolver_of_the_host_that_is_sandboxes_own_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "read", lambda: Names(resolvers=("198.18.31.255:53",), own=()))
    (said,) = [one for one in preflight.judge(machine.read(load({}))) if one.name == "resolvers"]
    assert said.level == "warn"
    assert "198.18.31.255:53 (it lies in `network.block`: sandboxes' resolver would ask itself)" in said.message


def test_the_devices_that_sandboxes_get_are_read() -> None:
    seen = machine.read(load({})).devices
    assert set(seen) == set(DEVICES)
    assert seen["null"] == (os.stat("/dev/null").st_mode, os.makedev(1, 3))


def test_the_state_folder_is_read_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    assert machine.state_folder(str(folder / "a" / "b")).found == str(tmp_path)
    folder.mkdir(mode=0o711)
    seen = machine.state_folder(str(folder))
    assert preflight.state_problem(seen) == ""
    assert not os.listdir(folder), "looking changes nothing"
    os.chown(folder, 1000, 1000)
    assert machine.state_folder(str(folder)).uid == 1000
    os.chown(folder, 0, 0)
    (folder / "thesis.txt").write_text("mine")
    assert machine.state_folder(str(folder)).foreign == "thesis.txt"
    (folder / "lock").write_text("somebody else's")
    assert machine.state_folder(str(folder)).foreign == "lock"
    assert not stat.S_ISDIR(machine.state_folder(str(folder / "lock")).mode)
    assert "not a folder" in preflight.state_problem(machine.state_folder(str(folder / "lock" / "below")))


def test_a_state_folder_that_takes_nothing_is_seen_without_trying(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0711,ro", "tmpfs", tmp_path], check=True, timeout=10)
    try:
        for path in (tmp_path, tmp_path / "below"):
            seen = machine.state_folder(str(path))
            assert (seen.found, seen.read_only, seen.writable) == (str(tmp_path), True, False)
    finally:
        subprocess.run(["umount", tmp_path], check=True, timeout=10)


def test_a_missing_runtime_is_found_missing() -> None:
    seen = machine.read(load({"SANDPOST_OCI_RUNTIME": "no-such-runc"}))
    assert seen.runtime == ""
    assert [f.name for f in preflight.judge(seen) if f.level == "fatal"] == ["runtime"]


def test_ports_that_cannot_be_had_are_told() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = machine.port_error(("127.0.0.1", port))
        assert "in use" in message
        assert f"sport = :{port}" in message
    assert machine.port_error(("127.0.0.1", port)) == ""
    assert "no address of this machine" in machine.port_error(("192.0.2.1", 80))
    assert "set `listen`" in machine.port_error(("no-such-host.invalid", 80))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"connections_room": 65536}, ["86 tenants at their limits fill", "65536", "nf_conntrack_max=1048576"]),
        ({"connections": 0}, ["limits.connections is 0", "262144", "set it"]),
    ],
)
def test_a_table_of_connections_that_tenants_can_fill_is_told(changes: dict[str, Any], words: list[str]) -> None:
    (finding,) = [one for one in preflight.judge(good(**changes)) if one.name == "connections"]
    assert finding.level == "warn"
    assert all(word in finding.message for word in words), finding.message


def test_each_firewall_that_cuts_sandboxes_off_is_a_finding_of_its_own() -> None:
    findings = [one for one in preflight.judge(good(cuts=("a", "b"))) if one.name.startswith("other firewalls")]
    assert [(one.level, one.message) for one in findings] == [("warn", "a"), ("warn", "b")]
    assert len({one.name for one in findings}) == 2


def test_this_kernels_firewall_can_do_all_that_it_must() -> None:
    before = subprocess.check_output(["nft", "list", "tables"])
    assert machine._lacking("nft") == ()
    assert b"sandpost_probe" not in before + subprocess.check_output(["nft", "list", "tables"])


@pytest.mark.parametrize("missing", ["masquerade", "fib", "limit rate", "ct count", "dnat"])
def test_a_kernel_that_lacks_a_part_of_the_firewall_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """A kernel without it, played by an `nft` that refuses what needs it."""
    fake = tmp_path / "nft"
    fake.write_text(
        '#!/bin/sh\ncase "$*" in *--check*) '
        f"if grep -q '{missing}'; then echo 'Error: Could not process rule: No such file or directory' >&2; exit 1; fi;; "
        "*ruleset*) echo '{\"nftables\": []}';; esac\n"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    seen = machine.read(load({}))
    assert len(seen.firewall_lacks) == 1
    with pytest.raises(HostUnfit, match=r"the kernel's firewall lacks .*load those modules"):
        preflight.require([one for one in preflight.judge(seen) if one.name == "nftables"])

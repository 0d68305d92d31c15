"""Each thing that a machine may lack is told in a sentence that says how to get it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.config import load, machine, preflight
from sandpost.config.preflight import CONTROLLERS, GiB, Machine, MiB
from sandpost.model.errors import HostUnfit


def good(**changes: Any) -> Machine:
    values: dict[str, Any] = {
        "uid": 0,
        "kernel": "6.1.0-18-amd64",
        "architecture": "x86_64",
        "cgroup1": frozenset(),
        "cgroup2": CONTROLLERS | {"io"},
        "binaries": {"nft": "/usr/sbin/nft", "mmdebstrap": "/usr/bin/mmdebstrap"},
        "runtime": "/usr/sbin/runc",
        "runtime_version": "runc version 1.3.4",
        "nft_error": "",
        "namespaces": dict.fromkeys(("user", "pid", "net", "mnt", "ipc", "uts", "cgroup"), 15000),
        "memory": 8 * GiB,
        "memory_available": 6 * GiB,
        "swap": 0,
        "disk_free": {"/var/lib/sandpost": 50 * GiB},
        "pid_max": 4194304,
        "open_files": 1048576,
        "lowers_oom_score": True,
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
        ({"runtime": ""}, "runtime", ["runc is missing", "apt-get install runc", "oci.runtime"]),
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
        ({"runtime_version": "runc version 1.0.0"}, "runtime", ["1.0.0", "1.1"]),
        ({"runtime_version": "hello"}, "runtime", ["/usr/sbin/runc"]),
        ({"binaries": {"nft": "/usr/sbin/nft"}}, "mmdebstrap", ["apt-get install mmdebstrap"]),
        ({"binaries": {"mmdebstrap": "/usr/bin/mmdebstrap"}}, "nft", ["apt-get install nftables"]),
        ({"nft_error": "Operation not permitted"}, "nftables", ["Operation not permitted", "CAP_NET_ADMIN"]),
        ({"namespaces": {"user": 0, "pid": 9, "net": 9, "mnt": 9}}, "namespaces", ["user", "sysctl -w user.max_user"]),
        ({"namespaces": {"pid": 999, "net": 999, "mnt": 999}}, "namespaces", ["no user namespaces"]),
        ({"unreadable": ("/opt/sandpost/src",)}, "program", ["/opt/sandpost/src", "chmod -R go+rX"]),
        ({"memory": 256 * MiB}, "memory", ["512 MiB"]),
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
        ({"runtime_version": "runc version 1.1.5+ds1"}, "runtime"),
        ({"runsc": "/bin/runsc", "runsc_version": "runsc version release-20221107.0"}, "gvisor"),
        ({"memory_available": 100 * MiB}, "memory"),
        ({"disk_free": {"/var": 500 * MiB}}, "disk"),
        ({"pid_max": 4096}, "pids"),
        ({"open_files": 1024}, "files"),
        ({"lowers_oom_score": False}, "oom"),
    ],
)
def test_what_is_merely_bad_is_a_warning(changes: dict[str, Any], name: str) -> None:
    findings = preflight.judge(good(**changes))
    assert [finding.name for finding in findings if finding.level != "ok"] == [name]
    preflight.require(findings)


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
    assert seen.pid_max > 300
    assert seen.binaries["nft"].endswith("/nft")
    assert preflight.cgroup_version(seen) in {1, 2}
    preflight.require(preflight.judge(seen))


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

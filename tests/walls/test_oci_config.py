"""The OCI configuration of a sandbox, as a value."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.model.inside import DEVICES
from sandpost.model.limits import Limits
from sandpost.walls import oci_config, seccomp
from sandpost.walls.identity import Identity


def rendered(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "walls": oci_config.standing("x86_64"),
        "program": oci_config.Program(
            command=("/usr/local/bin/node", "--x", "/opt/sandpost/node/main.js"), programs=7, ready=4
        ),
        "limits": Limits(),
        "identity": Identity(root=5000, user=5001),
        "rootfs": "/images/d/rootfs",
        "namespace": "/proc/1/fd/9",
        "group_path": "/sandpost-f/t-a/s-b",
        "resolv_conf": "/run/sandpost/f/resolv.conf",
        "modules": "/state/modules/ready",
    }
    return oci_config.render(**{**values, **changes})


def test_every_namespace_is_the_sandboxs_own() -> None:
    found = {item["type"]: item.get("path") for item in rendered()["linux"]["namespaces"]}
    assert found.pop("network") == "/proc/1/fd/9"
    assert found == dict.fromkeys(("pid", "mount", "ipc", "uts", "cgroup", "user"))


def test_only_two_ids_exist_and_none_is_the_hosts_root() -> None:
    linux = rendered()["linux"]
    assert linux["uidMappings"] == linux["gidMappings"]
    assert [(m["containerID"], m["hostID"], m["size"]) for m in linux["uidMappings"]] == [(0, 5000, 1), (1000, 5001, 1)]


def test_a_program_has_no_rights() -> None:
    process = rendered()["process"]
    assert process["user"] == {"uid": 1000, "gid": 1000, "additionalGids": []}
    assert all(held == [] for held in process["capabilities"].values())
    assert len(process["capabilities"]) == 5
    assert process["noNewPrivileges"] is True
    assert process["terminal"] is False


def test_an_init_runs_the_runtime_with_its_flags() -> None:
    process = rendered()["process"]
    assert process["args"] == [
        "/usr/bin/tini-static",
        "-s",
        "--",
        "/usr/local/bin/node",
        "--x",
        "/opt/sandpost/node/main.js",
    ]
    assert "SANDPOST_PROGRAMS=7" in process["env"]
    assert "SANDPOST_READY=4" in process["env"]


def test_what_is_mounted_is_proc_five_devices_tmp_the_modules_and_the_resolvers_name() -> None:
    mounts = {item["destination"]: item for item in rendered()["mounts"]}
    assert set(mounts) == {
        "/proc",
        "/dev",
        "/tmp",
        "/modules",
        "/etc/resolv.conf",
        *(f"/dev/{name}" for name in DEVICES),
    }
    assert {"nosuid", "nodev", "noexec"} <= set(mounts["/proc"]["options"])
    assert {"ro", "nosuid", "noexec"} <= set(mounts["/dev"]["options"])
    assert {"nosuid", "nodev"} <= set(mounts["/tmp"]["options"])
    assert mounts["/etc/resolv.conf"]["source"] == "/run/sandpost/f/resolv.conf"
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(mounts["/etc/resolv.conf"]["options"])
    assert mounts["/modules"]["source"] == "/state/modules/ready"
    assert {"ro", "nosuid", "nodev"} <= set(mounts["/modules"]["options"])
    assert list(mounts).index("/dev") < list(mounts).index("/dev/null")


@given(st.integers(1, 1 << 40), st.integers(1, 1 << 20), st.integers(8, 1 << 20))
def test_limits_are_in_it(tmp: int, inodes: int, files: int) -> None:
    config = rendered(limits=Limits(tmp=tmp, tmp_inodes=inodes, files=files))
    options = next(item["options"] for item in config["mounts"] if item["destination"] == "/tmp")
    assert f"size={tmp}" in options
    assert f"nr_inodes={inodes}" in options
    limits = {item["type"]: (item["soft"], item["hard"]) for item in config["process"]["rlimits"]}
    assert limits["RLIMIT_NOFILE"] == (files, files)
    assert limits["RLIMIT_FSIZE"] == (tmp + 65536, tmp + 65536)
    assert {name for name, values in limits.items() if values == (0, 0)} == {
        "RLIMIT_CORE",
        "RLIMIT_MSGQUEUE",
        "RLIMIT_NICE",
        "RLIMIT_RTPRIO",
    }


def test_the_root_is_read_only_and_proc_is_masked() -> None:
    config = rendered()
    assert config["root"] == {"path": "/images/d/rootfs", "readonly": True}
    assert config["linux"]["readonlyPaths"] == ["/proc/sys"]
    assert {"/proc/kcore", "/proc/keys", "/proc/kallsyms", "/proc/sysrq-trigger"} <= set(config["linux"]["maskedPaths"])


@pytest.mark.parametrize("machine", seccomp.ARCHITECTURES)
def test_system_calls_are_always_filtered(machine: str) -> None:
    assert rendered(walls=oci_config.standing(machine))["linux"]["seccomp"] == seccomp.render(machine)
    with pytest.raises(TypeError):
        oci_config.Walls()  # type: ignore[call-arg]


def test_ids_of_sandbox_and_tenant_are_not_in_what_a_program_can_read() -> None:
    process = rendered()["process"]
    assert "t-a" not in str(process)
    assert rendered()["hostname"] == "sandbox"

"""Where hierarchies are, on machines of all kinds."""

from hypothesis import given
from hypothesis import strategies as st

from sandpost.walls.cgroups import mounts

DEBIAN_12 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
V1_JOINED = """\
31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:14 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 31 0:32 / /elsewhere/memory rw,relatime - cgroup cgroup rw,memory
"""


def test_a_debian_12_has_one_tree() -> None:
    assert mounts.parse(DEBIAN_12) == mounts.Mounts({}, (), "/sys/fs/cgroup")


def test_joined_named_and_bound_hierarchies_are_found_once() -> None:
    found = mounts.parse(V1_JOINED)
    assert found.controllers["cpu"] == found.controllers["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert found.controllers["memory"] == "/sys/fs/cgroup/memory"
    assert found.hierarchies == ("/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/systemd")
    assert found.unified == "/sys/fs/cgroup/unified"


def test_odd_names_are_unescaped() -> None:
    assert mounts.parse(DEBIAN_12.replace("/sys/fs/cgroup", "/a\\040b\\134c")).unified == "/a b\\c"


def test_this_machine_has_what_its_version_needs() -> None:
    found = mounts.read()
    assert found.unified is not None or {"memory", "cpu", "cpuacct", "pids"} <= set(found.controllers)


@given(st.text())
def test_any_text_is_read_without_harm(text: str) -> None:
    mounts.parse(text)

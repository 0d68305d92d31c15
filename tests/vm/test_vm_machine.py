"""The virtual machine is what its promises are about: else all that passes in it would say little."""

import os
import subprocess
import sys
from pathlib import Path


def test_it_is_a_debian_12_with_its_own_kernel_and_systemd() -> None:
    assert 'VERSION_ID="12"' in Path("/etc/os-release").read_text()
    assert os.uname().release.startswith("6.1.")
    assert Path("/proc/1/comm").read_text() == "systemd\n"


def test_control_groups_are_of_version_2_alone() -> None:
    kinds = [line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()]
    assert "cgroup2" in kinds
    assert "cgroup" not in kinds


def test_it_could_swap() -> None:
    assert len(Path("/proc/swaps").read_text().splitlines()) == 2


def test_it_has_no_network() -> None:
    assert sorted(os.listdir("/sys/class/net")) == ["dummy0", "lo"]


def test_what_the_install_script_put_there_lacks_nothing() -> None:
    """It ran on a Debian with nothing but systemd and a kernel (`make-root`); here, without a network, it cannot add."""
    root = Path(__file__).parents[2]
    subprocess.run([str(root / "scripts/install")], check=True, timeout=120)
    doctor = [str(Path(sys.executable).with_name("sandpost")), "doctor"]
    assert subprocess.run(doctor, check=False, timeout=120).returncode == 0

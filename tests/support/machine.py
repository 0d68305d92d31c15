"""A look at what an installation has on a machine, by the names that carry its instance."""

import os
import re
import socket
import subprocess
from pathlib import Path

from sandpost.model.host import Host

EMULATED = os.path.exists("/mnt/run/arguments")
"""Whether this is the virtual machine of `scripts/test-vm`, whose processors are emulated."""


def traces(host: Host) -> list[str]:
    """Everything on this machine that carries the installation's name: nothing once it has stopped."""
    return [*_processes(host), *_groups(host), *_interfaces(host), *_tables(host), *_mounts(host), *_folders(host)]


def _processes(host: Host) -> list[str]:
    """Processes in its groups, or with its run folder in their command line."""
    group = re.compile(rf"/{host.cgroup_parent}(/|$)", re.MULTILINE)
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            groups = Path(f"/proc/{pid}/cgroup").read_text()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        # What was orphaned with a killed supervisor is its new parent's to reap, in that one's own time.
        if state == "Z":
            continue
        if f"{host.run_dir}/" in command or group.search(groups):
            found.append(f"process {pid} {command[:160]}")
    return found


def _groups(host: Host) -> list[str]:
    found = []
    for top, folders, _ in os.walk("/sys/fs/cgroup"):
        found += [f"group {os.path.join(top, name)}" for name in folders if name == host.cgroup_parent]
    return found


def _interfaces(host: Host) -> list[str]:
    return [f"interface {name}" for _, name in socket.if_nameindex() if name.startswith(host.interface_prefix)]


def _tables(host: Host) -> list[str]:
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True, timeout=10)
    return [line for line in done.stdout.splitlines() if line.endswith(f" {host.nft_table}")]


def _mounts(host: Host) -> list[str]:
    mounted = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    inside = (f"{host.run_dir}/", f"{host.state_dir}/")
    return [f"mount {place}" for place in mounted if place == host.run_dir or place.startswith(inside)]


def _folders(host: Host) -> list[str]:
    return [f"folder {host.run_dir}"] if os.path.exists(host.run_dir) else []

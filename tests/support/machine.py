"""A look at what an installation can leave on a machine, for comparing before and after."""

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Traces:
    """Everything on this machine that carries an installation's name."""

    processes: frozenset[str] = field(default_factory=frozenset)
    groups: frozenset[str] = field(default_factory=frozenset)
    interfaces: frozenset[str] = field(default_factory=frozenset)
    tables: frozenset[str] = field(default_factory=frozenset)
    mounts: frozenset[str] = field(default_factory=frozenset)
    folders: frozenset[str] = field(default_factory=frozenset)

    def __sub__(self, other: "Traces") -> "Traces":
        return Traces(
            self.processes - other.processes,
            self.groups - other.groups,
            self.interfaces - other.interfaces,
            self.tables - other.tables,
            self.mounts - other.mounts,
            self.folders - other.folders,
        )

    def __bool__(self) -> bool:
        return any((self.processes, self.groups, self.interfaces, self.tables, self.mounts, self.folders))


def traces() -> Traces:
    """Look at the machine now."""
    return Traces(
        processes=frozenset(_processes()),
        groups=frozenset(_groups()),
        interfaces=frozenset(name for name in os.listdir("/sys/class/net") if name.startswith("sp")),
        tables=frozenset(_tables()),
        mounts=frozenset(
            line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if "sandpost" in line
        ),
        folders=frozenset(_folders()),
    )


def _processes() -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        parts = ("sandpost serve", "sandpost controller", "sandpost proxy", "sandpost api", "sandpost collector")
        if any(part in command for part in parts) or "/opt/sandpost/" in command or "runc" in command.split(" ")[0]:
            found.append(f"{pid} {command[:120]}")
    return found


def _groups() -> list[str]:
    found = []
    for top, folders, _ in os.walk("/sys/fs/cgroup"):
        found += [os.path.join(top, name) for name in folders if name.startswith(("sandpost-", "t-", "s-"))]
    return found


def _tables() -> list[str]:
    done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True, timeout=10)
    return [line for line in done.stdout.splitlines() if "sandpost" in line]


def _folders() -> list[str]:
    run = Path("/run/sandpost")
    return [str(path) for path in run.iterdir() if path.is_dir()] if run.is_dir() else []

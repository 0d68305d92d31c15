"""What the machine says of processes and memory."""

import contextlib
import os
from pathlib import Path

MiB = 1 << 20


def available() -> int:
    """Return MemAvailable in bytes."""
    return _meminfo("MemAvailable")


def total() -> int:
    """Return the machine's memory in bytes."""
    return _meminfo("MemTotal")


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/meminfo has no {name}")


def pss(pid: int) -> int:
    """Return the proportional set size of a process in bytes; 0 if it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def cpu(pid: int) -> float:
    """Return the seconds of CPU that all threads of a process have used; `OSError` if it is gone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Return the bytes that a process has in memory, shared ones too; `OSError` if it is gone."""
    return _status(pid, "VmRSS")


def peak(pid: int) -> int:
    """Return the most bytes that a process ever had in memory; `OSError` if it is gone."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no {name}: it has ended")


def commands() -> dict[int, str]:
    """Return the command line of every process."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            found[int(pid)] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def groups(parent: str) -> int:
    """Return how many tenant groups (`t-..`) are below the cgroup `parent`, in whichever hierarchy has most."""
    roots = [path for path in Path("/sys/fs/cgroup").glob(f"**/{parent}") if path.is_dir()]
    return max((len(list(root.glob("t-*"))) for root in roots), default=0)


def interfaces(prefix: str) -> int:
    """Return how many network interfaces begin with `prefix`."""
    return sum(name.startswith(prefix) for name in os.listdir("/sys/class/net"))

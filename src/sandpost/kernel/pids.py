"""How many processes and threads there may be: of the machine, and of the control groups that this process is in."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

NEAR = 32
"""So many below a limit a program that has threads cannot be relied on to start."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: what it is called, how many there may be and are, and how to have more."""

    name: str
    most: int
    used: int
    mend: str


def limits() -> list[Limit]:
    """Read every limit that holds for this process."""
    running = _text("/proc/loadavg").split()[3].partition("/")[2]
    found = [
        Limit(name, int(_text(f"/proc/sys/{name.replace('.', '/')}")), int(running), f"`sysctl -w {name}=4194304`")
        for name in ("kernel.pid_max", "kernel.threads-max")
    ]
    for group, folder in _groups():
        with contextlib.suppress(OSError, ValueError):
            most = int(_text(os.path.join(folder, "pids.max")))
            mend = "raise it there, by `TasksMax=` of its systemd unit or `--pids-limit` of its container"
            found.append(Limit(f"pids.max of the control group {group}", most, _number(folder), mend))
    return found


def scarce() -> str:
    """Return which limit is met, or nearly so, and how to have more; empty: none."""
    with contextlib.suppress(OSError, ValueError):
        one = min(limits(), key=lambda one: one.most - one.used)
        if one.used + NEAR > one.most:
            return f"{one.used} of {one.most} processes and threads are there ({one.name}): {one.mend}"
    return ""


def refused() -> str:
    """Return what to say when the kernel refuses another process or thread (EAGAIN)."""
    return scarce() or "there are as many processes and threads as may be: see `sandpost doctor` on how to have more"


def _groups() -> Iterator[tuple[str, str]]:
    """Yield the groups of this process that can limit it, with the folder of each: its own and those above."""
    mounts = [line.split() for line in _text("/proc/self/mountinfo").splitlines()]
    for line in _text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "pids" not in controllers.split(","):
            continue
        for fields in mounts:
            kind, options = fields[fields.index("-") + 1], fields[-1].split(",")
            if kind != ("cgroup" if controllers else "cgroup2") or (controllers and "pids" not in options):
                continue
            # In a container the mount shows a group in the root's place.
            root, point = fields[3].rstrip("/"), fields[4]
            inside = (path.removeprefix(root) if path.startswith(root) else path).strip("/")
            while True:
                yield f"/{inside}", os.path.join(point, inside)
                if not inside:
                    break
                inside = os.path.dirname(inside)
            break


def _number(folder: str) -> int:
    return int(_text(os.path.join(folder, "pids.current")))


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().strip()

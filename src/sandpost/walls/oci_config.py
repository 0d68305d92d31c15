"""Renders a sandbox's walls as the configuration that an OCI runtime takes (runtime-spec 1.0, config.md). Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandpost.model.inside import DEVICES, INIT, MODULES, USER
from sandpost.model.limits import Limits
from sandpost.walls import procfs, seccomp
from sandpost.walls.identity import Identity

_PROCESSES_A_USER = 4096
"""Far above any tenant's limit of pids, which the control group holds and which can change while it runs."""
_SIGNALS_A_USER = 1024
"""Queued signals and POSIX timers (sigqueue(3), timer_create(2)), which are memory of the kernel: its own default
grows with the machine."""
_MEMORY_LOCKED = 64 << 10
"""Bytes: secrets of OpenSSL fit, and what is locked cannot be reclaimed."""
_BEYOND_TMP = 64 << 10
"""A file may be a page longer than /tmp is large, so that a full /tmp says ENOSPC and only a hole says EFBIG."""
OOM_SCORE = 500
"""Added to a sandbox's badness (proc(5)): it would inherit the platform's score, far below zero, and outlive whatever
else runs on the host. A program cannot lower it again, or to 0 at most where the platform has no CAP_SYS_RESOURCE."""
_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """The walls that are the same for every sandbox of an installation. `seccomp` is the OCI `linux.seccomp`."""

    seccomp: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What runs in a sandbox: its runtime's command line.

    `ready` is the number of the descriptor on which it says that it listens.
    """

    command: tuple[str, ...]
    programs: int
    ready: int | None = None


def standing(machine: str) -> Walls:
    """Return the walls of every installation on a `machine`, as uname(2) calls it. There are no others."""
    return Walls(seccomp=seccomp.render(machine))


def render(
    *,
    walls: Walls,
    program: Program,
    limits: Limits,
    identity: Identity,
    rootfs: str,
    namespace: str,
    group_path: str,
    resolv_conf: str,
    modules: str,
) -> dict[str, Any]:
    """Return the `config.json` of one sandbox. `namespace` is a path to its network namespace.

    `resolv_conf` is the host's file that names the resolver, `modules` its folder of those that programs may use.
    """
    linux: dict[str, Any] = {
        "namespaces": [
            {"type": "pid"},
            {"type": "mount"},
            {"type": "ipc"},
            {"type": "uts"},
            {"type": "cgroup"},
            {"type": "user"},
            {"type": "network", "path": namespace},
        ],
        "uidMappings": _mappings(identity),
        "gidMappings": _mappings(identity),
        "cgroupsPath": group_path,
        "maskedPaths": list(procfs.MASKED),
        "readonlyPaths": list(procfs.READ_ONLY),
        "rootfsPropagation": "private",
        "seccomp": walls.seccomp,
    }
    return {
        "ociVersion": "1.0.2",
        "hostname": "sandbox",
        "root": {"path": rootfs, "readonly": True},
        "process": {
            "terminal": False,
            "user": {"uid": USER, "gid": USER, "additionalGids": []},
            "args": arguments(program),
            "env": [
                f"PATH={_PATH}",
                "HOME=/tmp",
                "LANG=C.UTF-8",
                "NODE_ENV=production",
                # One arena of malloc for all threads: 0.3 MiB less a sandbox and a quicker boot (measured).
                "MALLOC_ARENA_MAX=1",
                f"SANDPOST_PROGRAMS={program.programs}",
                *([] if program.ready is None else [f"SANDPOST_READY={program.ready}"]),
            ],
            "cwd": "/tmp",  # noqa: S108 - a tmpfs of the sandbox's own
            "capabilities": {name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")},
            "rlimits": [
                _rlimit("RLIMIT_NOFILE", limits.files),
                _rlimit("RLIMIT_NPROC", _PROCESSES_A_USER),
                _rlimit("RLIMIT_FSIZE", limits.tmp + _BEYOND_TMP),
                _rlimit("RLIMIT_SIGPENDING", _SIGNALS_A_USER),
                _rlimit("RLIMIT_MEMLOCK", _MEMORY_LOCKED),
                *(_rlimit(f"RLIMIT_{name}", 0) for name in ("CORE", "MSGQUEUE", "NICE", "RTPRIO")),
            ],
            "noNewPrivileges": True,
            "oomScoreAdj": OOM_SCORE,
        },
        "mounts": _mounts(limits, rootfs, resolv_conf, modules),
        "linux": linux,
    }


def arguments(program: Program) -> list[str]:
    """Return the command line of a sandbox: an init that reaps, and the runtime."""
    return [INIT, "-s", "--", *program.command]


def tmp_options(limits: Limits) -> list[str]:
    """Return what a tmpfs that is a sandbox's /tmp is mounted with (tmpfs(5))."""
    return ["mode=1777", f"size={limits.tmp}", f"nr_inodes={limits.tmp_inodes}"]


def _mappings(identity: Identity) -> list[dict[str, int]]:
    return [
        {"containerID": 0, "hostID": identity.root, "size": 1},
        {"containerID": USER, "hostID": identity.user, "size": 1},
    ]


def _rlimit(kind: str, value: int) -> dict[str, Any]:
    return {"type": kind, "soft": value, "hard": value}


def _mounts(limits: Limits, rootfs: str, resolv_conf: str, modules: str) -> Sequence[dict[str, Any]]:
    # /dev is the root's own folder, bound so that the runtime adds no devices of its choice; over its empty files
    # go the host's nodes. There is no /sys, no /dev/pts, no /dev/shm, no /dev/mqueue.
    return [
        _mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
        _mount("/dev", "bind", f"{rootfs}/dev", ["bind", "ro", "nosuid", "noexec"]),
        *(_mount(f"/dev/{name}", "bind", f"/dev/{name}", ["bind"]) for name in DEVICES),
        # Its address is the installation's, and the root is shared by all on the machine.
        _mount("/etc/resolv.conf", "bind", resolv_conf, ["bind", "ro", "nosuid", "nodev", "noexec"]),
        # Modules may hold add-ons in machine code. What comes into the folder later is seen at once.
        _mount(MODULES, "bind", modules, ["bind", "ro", "nosuid", "nodev"]),
        _mount(
            "/tmp",  # noqa: S108 - the sandbox's own
            "tmpfs",
            "tmpfs",
            ["nosuid", "nodev", *tmp_options(limits)],
        ),
    ]


def _mount(destination: str, kind: str, source: str, options: Sequence[str]) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}

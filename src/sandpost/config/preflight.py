"""Judges a machine: what a sandbox host must have, a sentence for each thing that is missing. Pure.

`serve` starts only where nothing is fatal; `sandpost doctor` shows everything.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sandpost.model.engines import HOW_TO_GET
from sandpost.model.errors import HostUnfit
from sandpost.model.limits import EngineName

Level = Literal["ok", "warn", "fatal"]
MiB, GiB = 1 << 20, 1 << 30
CONTROLLERS = frozenset({"cpu", "memory", "pids"})
BINARIES: Mapping[str, str] = {"nft": "nftables", "mmdebstrap": "mmdebstrap"}
"""Programs that are called by name, and the Debian package of each."""
_KERNEL = re.compile(r"(\d+)\.(\d+)")
RUNSC_LEAST = 20260905
"""The day of the release that `scripts/install --gvisor` builds; older ones lack options that we give."""
_RUNSC = re.compile(r"runsc version \D*(20\d{6})")
_RUNC = re.compile(r"(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What was seen of a machine. Sizes bytes; an empty text: not there."""

    uid: int
    kernel: str
    architecture: str
    cgroup1: frozenset[str]
    """Controllers that are mounted as v1 hierarchies."""
    cgroup2: frozenset[str]
    """Controllers of the v2 tree, wherever it is mounted."""
    binaries: Mapping[str, str]
    """Paths of `BINARIES` that were found."""
    runtime: str
    """Path of runc."""
    runtime_version: str
    runsc: str = ""
    """Path of runsc."""
    runsc_version: str = ""
    engine: EngineName = "runc"
    """What is to make sandboxes."""
    nft_error: str
    """What `nft list tables` said, if it failed."""
    namespaces: Mapping[str, int]
    """/proc/sys/user/max_<name>_namespaces."""
    memory: int
    memory_available: int
    swap: int
    disk_free: Mapping[str, int]
    """Free bytes at the folders that we write to."""
    pid_max: int
    open_files: int
    """Hard limit of open files."""
    lowers_oom_score: bool
    port_error: str = ""
    """Why the listening address cannot be bound."""
    listen: str = ""
    unreadable: tuple[str, ...] = field(default=())
    """Places of our own program that other users cannot read."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `message` says what is there, or what is missing and how to get it."""

    name: str
    level: Level
    message: str


def judge(machine: Machine) -> list[Finding]:
    """Return a finding for each thing that matters, fatal or not, in the order in which one would mend them."""
    findings = [_root(machine), _kernel(machine), _cgroups(machine), _runtime(machine), _runsc(machine)]
    findings += [_binary(machine, name, package) for name, package in BINARIES.items()]
    findings += [_nft(machine), _namespaces(machine), _program(machine), _memory(machine)]
    findings += [_disk(folder, free) for folder, free in machine.disk_free.items()]
    findings += [_port(machine), _pids(machine), _files(machine), _oom(machine)]
    return findings


def require(findings: list[Finding]) -> None:
    """Raise `HostUnfit` with every fatal finding's sentence, if there is one."""
    fatal = [finding.message for finding in findings if finding.level == "fatal"]
    if fatal:
        raise HostUnfit("\n".join(fatal))


def cgroup_version(machine: Machine) -> int:
    """Return 2 or 1: the version that sandboxes are limited by; 0 if neither can. v2 is preferred."""
    if machine.cgroup2 >= CONTROLLERS:
        return 2
    return 1 if machine.cgroup1 >= CONTROLLERS else 0


def _root(machine: Machine) -> Finding:
    if machine.uid != 0:
        return Finding("root", "fatal", f"this is user {machine.uid}: run as root, or with sudo")
    return Finding("root", "ok", "running as root")


def _kernel(machine: Machine) -> Finding:
    match = _KERNEL.match(machine.kernel)
    if machine.architecture != "x86_64":
        return Finding("kernel", "fatal", f"this machine is {machine.architecture}: sandboxes run on x86_64")
    if match is None or (int(match[1]), int(match[2])) < (5, 10):
        return Finding("kernel", "fatal", f"Linux {machine.kernel} is too old: 5.10 or newer (Debian 12 has 6.1)")
    return Finding("kernel", "ok", f"Linux {machine.kernel}")


def _cgroups(machine: Machine) -> Finding:
    version = cgroup_version(machine)
    if version == 0:
        seen = machine.cgroup1 | machine.cgroup2
        lacking = ", ".join(sorted(CONTROLLERS - seen)) or "one version that has them all"
        return Finding(
            "cgroups",
            "fatal",
            f"cgroups lack {lacking}: boot with `cgroup_enable=memory` or with "
            "`systemd.unified_cgroup_hierarchy=1`; in a container, give it a cgroup tree to write to",
        )
    beside = " (hybrid: v1 controllers beside a v2 tree)" if version == 1 and machine.cgroup2 != machine.cgroup1 else ""
    return Finding("cgroups", "ok", f"cgroup v{version} with {', '.join(sorted(CONTROLLERS))}{beside}")


def _runtime(machine: Machine) -> Finding:
    if not machine.runtime:
        if machine.engine != "runc":
            return Finding("runtime", "ok", f"no runc; sandboxes are made by {machine.engine}")
        return Finding(
            "runtime", "fatal", "runc is missing: `apt-get install runc`, or name an OCI runtime with oci.runtime"
        )
    match = _RUNC.search(machine.runtime_version)
    if match is None:
        return Finding("runtime", "fatal", f"{machine.runtime} --version says nothing useful: reinstall runc")
    version = tuple(int(part) for part in match.groups())
    if version < (1, 1, 0):
        return Finding("runtime", "fatal", f"{machine.runtime} is {match[0]}: 1.1 or newer is needed")
    if version < (1, 2, 8):
        # CVE-2025-31133, -52565, -52881; they need mounts shared with a hostile container, which there are not here.
        return Finding("runtime", "warn", f"{machine.runtime} {match[0]} works; 1.2.8 has fixes that it lacks")
    return Finding("runtime", "ok", f"{machine.runtime} {match[0]}")


def _runsc(machine: Machine) -> Finding:
    level: Level = "fatal" if machine.engine == "runsc" else "warn"
    if not machine.runsc:
        if machine.engine != "runsc":
            return Finding("gvisor", "ok", "no runsc, and nothing asks for it: `scripts/install --gvisor` has it")
        return Finding("gvisor", level, f"`engine.runtime` is runsc and there is none: {HOW_TO_GET['runsc']}")
    match = _RUNSC.search(machine.runsc_version)
    if match is None:
        said = f"{machine.runsc} --version says nothing useful"
        return Finding("gvisor", level, f"{said}: {HOW_TO_GET['runsc']}")
    if int(match[1]) < RUNSC_LEAST:
        return Finding(
            "gvisor",
            level,
            f"{machine.runsc} is of {match[1]}, one of {RUNSC_LEAST} or later is needed: {HOW_TO_GET['runsc']}",
        )
    return Finding("gvisor", "ok", f"{machine.runsc} of {match[1]}")


def is_good_runsc(version: str) -> bool:
    """Whether a runsc that says `version` of itself can make our sandboxes."""
    match = _RUNSC.search(version)
    return match is not None and int(match[1]) >= RUNSC_LEAST


def _binary(machine: Machine, name: str, package: str) -> Finding:
    path = machine.binaries.get(name, "")
    if not path:
        return Finding(name, "fatal", f"{name} is missing: `apt-get install {package}`")
    return Finding(name, "ok", path)


def _nft(machine: Machine) -> Finding:
    if machine.nft_error and machine.binaries.get("nft"):
        return Finding(
            "nftables",
            "fatal",
            f"nft cannot reach the kernel ({machine.nft_error}): load nf_tables, and in a container give CAP_NET_ADMIN",
        )
    return Finding("nftables", "ok", "the firewall can be written")


def _namespaces(machine: Machine) -> Finding:
    for name, most in machine.namespaces.items():
        if most < 64:
            return Finding(
                "namespaces",
                "fatal",
                f"the kernel allows {most} {name} namespaces: `sysctl -w user.max_{name}_namespaces=15000`",
            )
    lacking = [name for name in ("user", "pid", "net", "mnt") if name not in machine.namespaces]
    if lacking:
        return Finding("namespaces", "fatal", f"the kernel has no {', '.join(lacking)} namespaces: use Debian's kernel")
    return Finding("namespaces", "ok", f"{min(machine.namespaces.values())} user namespaces and more")


def _program(machine: Machine) -> Finding:
    if machine.unreadable:
        return Finding(
            "program",
            "fatal",
            f"the platform's own users cannot read {machine.unreadable[0]}: `chmod -R go+rX {machine.unreadable[0]}`",
        )
    return Finding("program", "ok", "the platform's users can read it")


def _memory(machine: Machine) -> Finding:
    shown = f"{machine.memory / GiB:.1f} GiB, {machine.memory_available / GiB:.1f} GiB available"
    if machine.memory < 512 * MiB:
        return Finding("memory", "fatal", f"{shown}: at least 512 MiB is needed")
    if machine.memory_available < 512 * MiB:
        return Finding("memory", "warn", f"{shown}: few sandboxes will fit; a sandbox takes some 11 MiB")
    return Finding("memory", "ok", shown)


def _disk(folder: str, free: int) -> Finding:
    if free < 64 * MiB:
        return Finding("disk", "fatal", f"{folder} has {free // MiB} MiB free: make room, or choose another folder")
    if free < 1 * GiB:
        return Finding("disk", "warn", f"{folder} has {free // MiB} MiB free: an image takes some 400 MiB")
    return Finding("disk", "ok", f"{folder} has {free / GiB:.0f} GiB free")


def _port(machine: Machine) -> Finding:
    if machine.port_error:
        return Finding("port", "fatal", machine.port_error)
    return Finding("port", "ok", f"{machine.listen} is free" if machine.listen else "not looked at")


def _pids(machine: Machine) -> Finding:
    # A sandbox has some eight threads.
    if machine.pid_max < 32768:
        return Finding("pids", "warn", f"pid_max {machine.pid_max} is small: `sysctl -w kernel.pid_max=4194304`")
    return Finding("pids", "ok", f"pid_max {machine.pid_max}: room for {machine.pid_max // 8} sandboxes")


def _files(machine: Machine) -> Finding:
    if machine.open_files < 16384:
        return Finding(
            "files", "warn", f"{machine.open_files} open files a process are few: raise the hard limit (ulimit -Hn)"
        )
    return Finding("files", "ok", f"{machine.open_files} open files a process")


def _oom(machine: Machine) -> Finding:
    if not machine.lowers_oom_score:
        return Finding(
            "oom",
            "warn",
            "no CAP_SYS_RESOURCE: short of memory, the kernel may end the platform's processes before sandboxes",
        )
    return Finding("oom", "ok", "the platform's processes go last when memory runs out")

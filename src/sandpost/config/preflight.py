"""Judges a machine: what a sandbox host must have, a sentence for each thing that is missing. Pure.

`serve` starts only where nothing is fatal; `sandpost doctor` shows everything.
"""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sandpost.config import ids, runtime_fixes
from sandpost.config.features import FEATURES
from sandpost.config.table import DEFAULTS
from sandpost.kernel.pids import Limit
from sandpost.model.engines import HOW_TO_GET
from sandpost.model.errors import HostUnfit
from sandpost.model.inside import DEVICES
from sandpost.model.limits import EngineName

Level = Literal["ok", "warn", "fatal"]
MiB, GiB = 1 << 20, 1 << 30
CONTROLLERS = frozenset({"cpu", "memory", "pids"})
BINARIES: Mapping[str, str] = {"nft": "nftables", "mmdebstrap": "mmdebstrap"}
"""Programs that are called by name, and the Debian package of each."""
_OTHER_RUNTIME = "name an OCI runtime's path, or leave the setting out and `apt-get install runc`"
_MEMORY_DEVICES = 1
_MINORS = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
"""Linux, Documentation/admin-guide/devices.txt, major 1."""
_ENDING = 10
"""Seconds for which a connection that has ended takes room."""
_TENANTS = 100
"""So many tenants at their limits at least the kernel's table of connections should have room for."""
_OWN_TASKS = 64
"""Processes and threads of our own, with those of an OCI runtime that starts a sandbox."""
_KERNEL = re.compile(r"(\d+)\.(\d+)")
RUNSC_LEAST = 20260905
"""The day of the release that `scripts/install --gvisor` builds; older ones lack options that we give."""
_RUNSC = re.compile(r"runsc version \D*(20\d{6})")
_LEAST_RUNC = runtime_fixes.Version(1, 1, 0)
_LIBSECCOMP = re.compile(r"^libseccomp: (\d+)\.(\d+)\.(\d+)", re.MULTILINE)
_SPEC = re.compile(r"^spec: \d", re.MULTILINE)
"""In what `--version` of an OCI runtime prints: the version of the specification that it keeps to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFolder:
    """What was seen of the state folder `path`, or of what is nearest above it where it is still to be made."""

    path: str
    found: str
    """`path` itself if it is there, else the nearest one above it."""
    mode: int
    """st_mode of `found`; of `path` itself no link is followed."""
    uid: int
    read_only: bool
    """Whether the file system of `found` is mounted so."""
    writable: bool
    """Whether root may make something in `found`."""
    foreign: str
    """Name of something in it that is not ours; empty if there is nothing."""


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
    runtime_given: str
    """The setting `oci.runtime`."""
    runtime: str
    """Path of the OCI runtime; empty if what was given is no program that can be run."""
    runtime_mode: int
    """st_mode of what was given as a path; 0: there is nothing."""
    runtime_version: str
    """All that it prints for `--version`."""
    filters: frozenset[str]
    """What a system call filter can answer (/proc/sys/kernel/seccomp/actions_avail)."""
    runsc: str = ""
    """Path of runsc."""
    runsc_version: str = ""
    engine: EngineName = "runc"
    """What is to make sandboxes."""
    nft_error: str
    """What `nft list ruleset` said, if it failed."""
    firewall_lacks: tuple[str, ...] = ()
    """What of `features` the kernel's firewall cannot do."""
    cuts: tuple[str, ...] = ()
    """What firewalls of others cut off, a sentence each (`foreign`)."""
    connections_room: int = 0
    """How many connections the kernel tracks at most; 0: it does not say yet."""
    connections: int = 0
    """`limits.connections`."""
    connection_rate: int = 0
    user_ids: ids.Ids
    """Those of all installations, as `uids.base` and `network.block` have it."""
    user_ids_there: tuple[ids.Ids, ...] = (ids.Ids(0, ids.END),)
    """Which exist: in a container others than its own do not."""
    user_ids_taken: tuple[ids.Ids, ...] = ()
    """Others': users and groups of the machine, and what may be dealt to users for their containers."""
    settled: bool = False
    """Whether this installation has its place, and with it its ids."""
    namespaces: Mapping[str, int]
    """/proc/sys/user/max_<name>_namespaces."""
    devices: Mapping[str, tuple[int, int]]
    """st_mode and st_rdev of `/dev/<name>`, which sandboxes get, by name; (0, 0): not there."""
    memory: int
    memory_available: int
    swap: int
    swap_counted: bool = True
    """Whether control groups count what is swapped."""
    state: StateFolder
    disk_free: Mapping[str, int]
    """Free bytes at the folders that we write to."""
    tasks: tuple[Limit, ...]
    """How many processes and threads there may be."""
    open_files: int
    """Hard limit of open files."""
    lowers_oom_score: bool
    landlock: int
    """ABI of Landlock, 0 if there is none."""
    port_error: str = ""
    """Why the listening address cannot be bound."""
    listen: str = ""
    resolvers: Mapping[str, str] = field(default_factory=dict)
    """Where sandboxes' questions for names go, and why there is no way there (empty: there is one)."""
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
    if (pids := _pids(machine)).level == "fatal":
        # Without processes no program can be asked anything: what it did not say would be taken for missing.
        return [_root(machine), pids]
    findings = [
        _root(machine),
        _kernel(machine),
        _cgroups(machine),
        _runtime(machine),
        _runsc(machine),
        _seccomp(machine),
    ]
    findings += [_binary(machine, name, package) for name, package in BINARIES.items()]
    findings += [_nft(machine), *_cuts(machine), _connections(machine), _namespaces(machine), _landlock(machine)]
    findings += [_ids(machine), _devices(machine), _program(machine), _memory(machine), _swap(machine), _state(machine)]
    findings += [_disk(folder, free, settled=machine.settled) for folder, free in machine.disk_free.items()]
    findings += [_port(machine), _resolvers(machine), pids, _files(machine), _oom(machine)]
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


def state_problem(seen: StateFolder) -> str:
    """Return why no state can be kept in the folder, and what to do; empty if it can."""
    elsewhere = "set state_dir to another folder"
    if not stat.S_ISDIR(seen.mode):
        return f"{seen.found} is not a folder: set state_dir to a folder of Sandpost's own"
    if seen.found == seen.path and (seen.uid != 0 or seen.mode & 0o022):
        whose = f"belongs to user {seen.uid}" if seen.uid != 0 else "is open to others"
        return (
            f"{seen.path} {whose}: it must belong to root and not be writable by others: `chown root {seen.path}` and "
            f"`chmod 711 {seen.path}`, or {elsewhere}"
        )
    if seen.foreign:
        return (
            f"{seen.path} holds files that are not Sandpost's ({seen.foreign}): set state_dir to an empty or new folder"
        )
    if seen.read_only:
        return f"{seen.found} is on a read-only file system: remount it, or {elsewhere}"
    if not seen.writable:
        return f"{seen.found} may not be written, not even by root: see `lsattr -d {seen.found}`, or {elsewhere}"
    return ""


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
        return Finding("runtime", "fatal", _no_runtime(machine.runtime_given, machine.runtime_mode))
    version = runtime_fixes.parse(machine.runtime_version)
    if version is None or not _SPEC.search(machine.runtime_version):
        said = f"`{machine.runtime} --version` shows no OCI runtime"
        if machine.runtime_given == DEFAULTS["oci.runtime"]:
            return Finding("runtime", "fatal", f"{said}: reinstall runc")
        return Finding("runtime", "fatal", f"`oci.runtime` is {machine.runtime_given}, but {said}: {_OTHER_RUNTIME}")
    if version < _LEAST_RUNC:
        return Finding("runtime", "fatal", f"{machine.runtime} is {version}: 1.1 or newer is needed")
    lacking = runtime_fixes.lacks(version)
    if lacking:
        # They need mounts shared with a hostile container, which there are not here.
        return Finding(
            "runtime",
            "warn",
            f"{machine.runtime} {version} works, without the fixes of {', '.join(lacking)}: "
            "`scripts/install --build-runc` makes a current one",
        )
    return Finding("runtime", "ok", f"{machine.runtime} {version}")


def _no_runtime(given: str, mode: int) -> str:
    """Return why `given`, a name or a path to what has `mode`, is no program that can be run."""
    if given == DEFAULTS["oci.runtime"]:
        return (
            "runc is missing: `apt-get install runc` or `scripts/install --build-runc`, or name an OCI runtime with "
            "oci.runtime"
        )
    if "/" not in given:
        why = f"which is in no folder of PATH: {_OTHER_RUNTIME}"
    elif mode == 0:
        why = f"and there is no such file: {_OTHER_RUNTIME}"
    elif not stat.S_ISREG(mode):
        why = f"which is not a file: {_OTHER_RUNTIME}"
    else:
        why = f"which may not be run: `chmod 755 {given}`, or {_OTHER_RUNTIME}"
    return f"`oci.runtime` is {given}, {why}"


def _seccomp(machine: Machine) -> Finding:
    if not machine.filters >= {"allow", "errno", "kill_thread"}:
        return Finding(
            "seccomp",
            "fatal",
            f"Linux {machine.kernel} cannot filter system calls: use Debian's kernel, or another one with "
            "CONFIG_SECCOMP_FILTER",
        )
    if runtime_fixes.parse(machine.runtime_version) is None or not _SPEC.search(machine.runtime_version):
        # Said of the runtime already.
        return Finding("seccomp", "ok", "the kernel can filter system calls")
    match = _LIBSECCOMP.search(machine.runtime_version)
    if match is None:
        return Finding(
            "seccomp",
            "fatal",
            f"{machine.runtime} was built without seccomp, so it cannot filter system calls: `apt-get install runc` "
            "or `scripts/install --build-runc`",
        )
    version = tuple(int(part) for part in match.groups())
    if version < (2, 5, 0):
        return Finding(
            "seccomp",
            "fatal",
            f"libseccomp {'.'.join(match.groups())} does not know the system calls of this table: 2.5 or newer is "
            "needed (Debian 12 has 2.5.4)",
        )
    return Finding("seccomp", "ok", f"system calls are filtered (libseccomp {'.'.join(match.groups())})")


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
    if machine.firewall_lacks:
        lacking = ", ".join(f"{name} ({FEATURES[name].module})" for name in machine.firewall_lacks)
        return Finding(
            "nftables", "fatal", f"the kernel's firewall lacks {lacking}: load those modules, or use Debian's kernel"
        )
    return Finding("nftables", "ok", "the firewall can be written, and does what it must")


def _cuts(machine: Machine) -> list[Finding]:
    if not machine.cuts:
        return [Finding("other firewalls", "ok", "none cuts sandboxes off")]
    names = ("other firewalls", *(f"other firewalls, {n}" for n in range(2, len(machine.cuts) + 1)))
    return [Finding(name, "warn", sentence) for name, sentence in zip(names, machine.cuts, strict=True)]


def _connections(machine: Machine) -> Finding:
    room = machine.connections_room
    if not room:
        return Finding("connections", "ok", "the kernel tracks none yet")
    raise_it = f"`sysctl -w net.netfilter.nf_conntrack_max={max(1 << 20, 2 * room)}`"
    if not machine.connections:
        return Finding(
            "connections",
            "warn",
            f"limits.connections is 0: one tenant can take most of the kernel's table of {room} connections, which "
            "the whole machine shares: set it",
        )
    # Those that have just ended are tracked for some seconds more (`network.firewall.render.TIMEOUTS`).
    tenants = room // (machine.connections + _ENDING * machine.connection_rate)
    if tenants < _TENANTS:
        return Finding(
            "connections",
            "warn",
            f"{tenants} tenants at their limits fill the kernel's table of {room} connections, and then no sandbox "
            f"gets a new one: {raise_it}, or lower limits.connections",
        )
    return Finding("connections", "ok", f"room for {room}: {tenants} tenants at their limits")


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


def _ids(machine: Machine) -> Finding:
    block = machine.user_ids
    other = ids.free(block.count, machine.user_ids_taken, machine.user_ids_there)
    mend = "choose a smaller network.block, for there is no room" if other is None else f"set uids.base to {other}"
    ours = f"`uids.base` {block.first} and `network.block` mean the user ids {block}"
    if ids.lacks(block, machine.user_ids_there):
        there = ", ".join(str(one) for one in machine.user_ids_there)
        return Finding(
            "user ids",
            "fatal",
            f"{ours}, and in this container there are {there} alone: {mend}, or give the container more",
        )
    if taken := ids.overlap(block, machine.user_ids_taken):
        return Finding(
            "user ids",
            # What runs keeps its ids; a start that failed would leave it without a supervisor.
            "warn" if machine.settled else "fatal",
            f"{ours}, of which {taken} {taken.whose}: {mend}, or free them",
        )
    return Finding("user ids", "ok", f"{block} are nobody else's")


def _landlock(machine: Machine) -> Finding:
    if machine.landlock == 0:
        return Finding(
            "landlock",
            "warn",
            "the kernel has no Landlock: users, modes and mounts alone keep the platform's parts from files; 5.13 or "
            "newer has it (Debian's from 12 on), and `landlock` must stand in the boot option `lsm=` if that is set",
        )
    return Finding("landlock", "ok", f"Landlock, ABI {machine.landlock}")


def _devices(machine: Machine) -> Finding:
    # What is bound over a sandbox's own /dev: what is wrong with it there, programs meet.
    wrong = [text for name in DEVICES if (text := _device(f"/dev/{name}", _MINORS[name], *machine.devices[name]))]
    if wrong:
        return Finding("devices", "fatal", "; ".join(wrong))
    return Finding("devices", "ok", f"/dev has {', '.join(DEVICES)}")


def _device(path: str, minor: int, mode: int, device: int) -> str:
    """Return what is wrong with the memory device (mem(4), null(4), random(4)) at `path`, and what to do."""
    make = f"mknod -m 666 {path} c {_MEMORY_DEVICES} {minor}"
    if mode == 0:
        return f"there is no {path}, which sandboxes need: `{make}`"
    if not stat.S_ISCHR(mode) or device != os.makedev(_MEMORY_DEVICES, minor):
        return f"{path} is not the device of that name, which sandboxes need: `rm {path} && {make}`"
    if mode & 0o666 != 0o666:
        return f"{path} has mode {stat.S_IMODE(mode):04o}, and programs in sandboxes need 0666: `chmod 666 {path}`"
    return ""


def _program(machine: Machine) -> Finding:
    if machine.unreadable:
        return Finding(
            "program",
            "fatal",
            f"the platform's own users cannot read {machine.unreadable[0]}: `chmod -R go+rX {machine.unreadable[0]}`",
        )
    return Finding("program", "ok", "the platform's users can read it")


def _swap(machine: Machine) -> Finding:
    if machine.swap and not machine.swap_counted:
        return Finding(
            "swap",
            "fatal",
            f"the machine has {machine.swap / GiB:.1f} GiB of swap that its cgroups do not count, so that "
            "`limits.memory` would not hold: boot with `swapaccount=1`, or `swapoff -a`",
        )
    return Finding("swap", "ok", "swap is counted" if machine.swap else "no swap")


def _memory(machine: Machine) -> Finding:
    shown = f"{machine.memory / GiB:.1f} GiB, {machine.memory_available / GiB:.1f} GiB available"
    if machine.memory < 512 * MiB:
        return Finding("memory", "fatal", f"{shown}: at least 512 MiB is needed")
    if machine.memory_available < 512 * MiB:
        return Finding("memory", "warn", f"{shown}: few sandboxes will fit; a sandbox takes some 11 MiB")
    return Finding("memory", "ok", shown)


def _state(machine: Machine) -> Finding:
    seen = machine.state
    if machine.uid != 0:
        return Finding("state", "ok", "not looked at: others than root do not see into it")
    if problem := state_problem(seen):
        return Finding("state", "fatal", problem)
    return Finding("state", "ok", f"{seen.path} can be written" if seen.found == seen.path else f"{seen.path} is new")


def _disk(folder: str, free: int, *, settled: bool) -> Finding:
    if free < 64 * MiB:
        # An installation that may be running must get its supervisor.
        level: Level = "warn" if settled else "fatal"
        return Finding("disk", level, f"{folder} has {free // MiB} MiB free: make room, or choose another folder")
    if free < 1 * GiB:
        return Finding("disk", "warn", f"{folder} has {free // MiB} MiB free: an image takes some 400 MiB")
    return Finding("disk", "ok", f"{folder} has {free / GiB:.0f} GiB free")


def _port(machine: Machine) -> Finding:
    if machine.port_error:
        return Finding("port", "fatal", machine.port_error)
    return Finding("port", "ok", f"{machine.listen} is free" if machine.listen else "not looked at")


def _resolvers(machine: Machine) -> Finding:
    if not machine.resolvers:
        return Finding(
            "resolvers",
            "warn",
            "this host knows no resolver: sandboxes will find no names; set egress.resolvers, or name one in "
            "/etc/resolv.conf",
        )
    lost = [f"{shown} ({why})" for shown, why in machine.resolvers.items() if why]
    if lost:
        return Finding(
            "resolvers", "warn", f"there is no way to the resolver {', '.join(lost)}: sandboxes' names go to the others"
        )
    return Finding("resolvers", "ok", f"sandboxes' names are asked of {', '.join(machine.resolvers)}")


def _pids(machine: Machine) -> Finding:
    # A sandbox has some eight threads.
    left = min(machine.tasks, key=lambda one: one.most - one.used)
    if left.used + _OWN_TASKS > left.most:
        return Finding(
            "pids",
            "fatal",
            f"{left.used} of {left.most} processes and threads are there ({left.name}), and the platform alone takes "
            f"{_OWN_TASKS}: {left.mend}",
        )
    least = min(machine.tasks, key=lambda one: one.most)
    if least.most < 32768:
        return Finding("pids", "warn", f"{least.name} is small, {least.most} processes and threads: {least.mend}")
    return Finding("pids", "ok", f"{least.name} is {least.most}: room for {least.most // 8} sandboxes")


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

"""Looks at this machine: fills what `preflight` judges. Reads, changes nothing."""

import contextlib
import os
import platform
import resource
import shutil
import socket
import subprocess

from sandpost.config import preflight, program
from sandpost.config.preflight import BINARIES, Machine
from sandpost.config.resolve import Settings
from sandpost.config.table import DEFAULTS

_CAP_SYS_RESOURCE = 24
_NAMESPACES = ("user", "pid", "net", "mnt", "ipc", "uts", "cgroup")


def read(settings: Settings, *, port_error: str = "") -> Machine:
    """Look at the machine as `settings` would use it. Takes some 30 ms, most of it two programs' start."""
    binaries = {name: found for name in BINARIES if (found := shutil.which(name)) is not None}
    runtime = shutil.which(settings["oci.runtime"]) or ""
    version = _start([runtime, "--version"]) if runtime else None
    runsc = runsc_program(settings)
    runsc_version = _start([runsc, "--version"]) if runsc else None
    tables = _start([binaries["nft"], "list", "tables"]) if "nft" in binaries else None
    memory = _meminfo()
    cgroup1, cgroup2 = cgroup_controllers()
    return Machine(
        uid=os.geteuid(),
        kernel=platform.release(),
        architecture=platform.machine(),
        cgroup1=cgroup1,
        cgroup2=cgroup2,
        binaries=binaries,
        runtime=runtime,
        runtime_version=_finish(version)[0] if version else "",
        runsc=runsc,
        runsc_version=_finish(runsc_version)[0] if runsc_version else "",
        engine=settings["engine.runtime"],
        nft_error=_finish(tables)[1] if tables else "",
        namespaces=_namespaces(),
        memory=memory.get("MemTotal", 0),
        memory_available=memory.get("MemAvailable", 0),
        swap=memory.get("SwapTotal", 0),
        disk_free={path: _free(path) for path in dict.fromkeys((settings["state_dir"], settings["image_dir"]))},
        pid_max=int(_text("/proc/sys/kernel/pid_max") or 0),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1] % (1 << 63),
        lowers_oom_score=_has_capability(_CAP_SYS_RESOURCE),
        listen=settings["listen"],
        port_error=port_error,
        unreadable=tuple(program.unreadable(program.program_folders())),
    )


def runsc_program(settings: Settings) -> str:
    """Return the path of runsc; empty: there is none.

    By the default's name it is the one that was built beside our sources, where there is one.
    """
    if settings["oci.runsc"] == DEFAULTS["oci.runsc"] and os.access(built_runsc(), os.X_OK):
        return built_runsc()
    return shutil.which(settings["oci.runsc"]) or ""


def read_runsc(settings: Settings) -> str:
    """Return the path of a runsc that can make sandboxes; empty: there is none."""
    path = runsc_program(settings)
    asked = _start([path, "--version"]) if path else None
    return path if asked and preflight.is_good_runsc(_finish(asked)[0]) else ""


def built_runsc() -> str:
    """Return where `scripts/install --gvisor` puts runsc."""
    return os.path.join(os.path.dirname(program.source_folder()), ".tools", "bin", "runsc")


def port_error(address: tuple[str, int], setting: str = "listen") -> str:
    """Return why nobody can listen on `address`, the value of `setting`, now; empty if one can."""
    host, port = address
    try:
        for family, kind, proto, _, where in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, proto) as sock:
                # As asyncio and others do: ports of connections that are closing are free.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(where)
                sock.listen(1)
    except PermissionError:
        return f"{host}:{port} may not be bound by this user: run as root, or set `{setting}` to a port above 1023"
    except OSError as error:
        if error.errno == 98:
            return f"{host}:{port} is in use: `ss -ltnp 'sport = :{port}'` says by whom; stop it, or set `{setting}`"
        if error.errno == 99:
            return f"{host} is no address of this machine: set `{setting}` to one of `ip -brief address`"
        return f"nobody can listen on {host}:{port} ({error.strerror or error}): set `{setting}`"
    return ""


def cgroup_controllers() -> tuple[frozenset[str], frozenset[str]]:
    """Return the controllers of v1 hierarchies that are mounted, and of the v2 tree."""
    first: set[str] = set()
    second: set[str] = set()
    for line in _text("/proc/self/mounts").splitlines():
        _, where, kind, options = line.split(" ")[:4]
        if kind == "cgroup":
            first.update(options.split(","))
        elif kind == "cgroup2":
            second.update(_text(os.path.join(where, "cgroup.controllers")).split())
    return frozenset(first & {"cpu", "memory", "pids", "cpuacct", "cpuset", "freezer"}), frozenset(second)


def cgroup_roots() -> list[str]:
    """Return where cgroup hierarchies are mounted."""
    lines = (line.split(" ") for line in _text("/proc/self/mounts").splitlines())
    return [fields[1] for fields in lines if fields[2] in {"cgroup", "cgroup2"}]


def place_in_use(k: int) -> bool:
    """Whether anything on this machine carries the name of place `k`: a cgroup, or an interface of a sandbox."""
    if any(os.path.isdir(os.path.join(root, f"sandpost-{k:x}")) for root in cgroup_roots()):
        return True
    return any(name.startswith(f"sp{k:x}-") for name in os.listdir("/sys/class/net"))


def _namespaces() -> dict[str, int]:
    texts = {name: _text(f"/proc/sys/user/max_{name}_namespaces") for name in _NAMESPACES}
    return {name: int(text) for name, text in texts.items() if text}


def _meminfo() -> dict[str, int]:
    pairs = (line.split(":") for line in _text("/proc/meminfo").splitlines())
    return {name: int(rest.split()[0]) * 1024 for name, rest in pairs}


def _free(path: str) -> int:
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def _has_capability(number: int) -> bool:
    for line in _text("/proc/self/status").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _text(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
        return file.read().strip()
    return ""


def _start(command: list[str]) -> "subprocess.Popen[str] | None":
    with contextlib.suppress(OSError):
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    return None


def _finish(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Return what a program printed, and its complaint if it failed."""
    try:
        out, err = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "", "no answer within 10 s"
    return out, "" if process.returncode == 0 else (err.strip() or f"status {process.returncode}")

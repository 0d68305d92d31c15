"""Looks at this machine: fills what `preflight` judges. Reads, changes nothing."""

import contextlib
import grp
import json
import os
import platform
import pwd
import resource
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network

from sandpost.config import claims, contradictions, features, foreign, ids, names, preflight
from sandpost.config.kinds import split_address
from sandpost.config.preflight import BINARIES, Machine, StateFolder
from sandpost.config.resolve import Settings
from sandpost.config.table import DEFAULTS
from sandpost.kernel import landlock, pids, program
from sandpost.model.host import INSTANCES
from sandpost.model.inside import DEVICES

_BUILT_RUNC = ".tools/bin/runc"
"""What `scripts/install --build-runc` makes."""
STATE_MARK = b"Sandpost keeps this folder. The lock on this file is held while it runs.\n"
"""What the file `lock` of a state folder holds."""
_STATE = frozenset({"lock", "store", "code", "logs", "image", "modules", "serve.log", "serve.log.1", "lost+found"})
_CAP_SYS_RESOURCE = 24
_NAMESPACES = ("user", "pid", "net", "mnt", "ipc", "uts", "cgroup")


def read(settings: Settings, *, port_error: str = "") -> Machine:
    """Look at the machine as `settings` would use it. Takes some 30 ms, most of it two programs' start."""
    binaries = {name: found for name in BINARIES if (found := shutil.which(name)) is not None}
    given = settings["oci.runtime"]
    runtime = oci_runtime(given)
    version = _start([runtime, "--version"]) if runtime else None
    runsc = runsc_program(settings)
    runsc_version = _start([runsc, "--version"]) if runsc else None
    nft = binaries.get("nft", "")
    probe = _start([nft, "--check", "--file", "-"], features.script(*features.FEATURES)) if nft else None
    rules = _start([nft, "--json", "list", "ruleset"]) if nft else None
    ruleset, nft_error = _finish(rules) if rules else ("", "")
    memory = _meminfo()
    cgroup1, cgroup2 = cgroup_controllers()
    return Machine(
        uid=os.geteuid(),
        kernel=platform.release(),
        architecture=platform.machine(),
        cgroup1=cgroup1,
        cgroup2=cgroup2,
        binaries=binaries,
        runtime_given=given,
        runtime=runtime,
        runtime_mode=_mode_and_device(given)[0],
        runtime_version=_finish(version)[0] if version else "",
        runsc=runsc,
        runsc_version=_finish(runsc_version)[0] if runsc_version else "",
        engine=settings["engine.runtime"],
        filters=frozenset(_text("/proc/sys/kernel/seccomp/actions_avail").split()),
        nft_error=nft_error,
        firewall_lacks=_lacking(nft) if probe and _finish(probe)[1] and not nft_error else (),
        cuts=tuple(_cuts(ruleset)),
        connections_room=int(_text("/proc/sys/net/netfilter/nf_conntrack_max") or 0),
        connections=settings["limits.connections"],
        connection_rate=settings["limits.connection_rate"],
        user_ids=ids.Ids(settings["uids.base"], INSTANCES * ids.ids_each(IPv4Network(settings["network.block"]))),
        user_ids_there=tuple(ids.both(*(ids.mapped(_text(f"/proc/self/{kind}_map")) for kind in ("uid", "gid")))),
        user_ids_taken=tuple(_ids_taken()),
        settled=claims.find(settings["run_dir"], settings["state_dir"]) is not None,
        namespaces=_namespaces(),
        devices={name: _mode_and_device(f"/dev/{name}") for name in DEVICES},
        memory=memory.get("MemTotal", 0),
        memory_available=memory.get("MemAvailable", 0),
        swap=memory.get("SwapTotal", 0),
        swap_counted=_swap_counted(),
        state=state_folder(settings["state_dir"]),
        disk_free={path: _free(path) for path in dict.fromkeys((settings["state_dir"], settings["image_dir"]))},
        tasks=tuple(pids.limits()),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1] % (1 << 63),
        lowers_oom_score=_has_capability(_CAP_SYS_RESOURCE),
        landlock=landlock.version(),
        listen=settings["listen"],
        port_error=port_error,
        resolvers=_resolvers(
            settings["egress.resolvers"] or names.read().resolvers, IPv4Network(settings["network.block"])
        ),
        unreadable=tuple(program.unreadable(program.program_folders())),
    )


def _swap_counted() -> bool:
    """Whether control groups have files for swap; the root of a v2 tree has none of memory, those below it do."""
    for root in cgroup_roots():
        for group in (root, *(entry.path for entry in os.scandir(root) if entry.is_dir())):
            for memory, swap in (("usage_in_bytes", "memsw.usage_in_bytes"), ("current", "swap.current")):
                if os.path.exists(os.path.join(group, f"memory.{memory}")):
                    return os.path.exists(os.path.join(group, f"memory.{swap}"))
    return True


def state_folder(path: str) -> StateFolder:
    """Look at the state folder `path`, or at what is nearest above it."""
    found, seen = path, None
    while seen is None:
        try:
            seen = os.stat(found, follow_symlinks=found != path)
        except OSError:
            found = os.path.dirname(found)
    return StateFolder(
        path=path,
        found=found,
        mode=seen.st_mode,
        uid=seen.st_uid,
        read_only=bool(os.statvfs(found).f_flag & os.ST_RDONLY),
        # Asks the kernel, who knows of mounts and attributes what modes do not tell.
        writable=os.access(found, os.W_OK | os.X_OK),
        foreign=_foreign(path) if found == path and stat.S_ISDIR(seen.st_mode) else "",
    )


def oci_runtime(setting: str = DEFAULTS["oci.runtime"]) -> str:
    """Return the path of the OCI runtime that the setting `oci.runtime` names; empty if there is none.

    Its default is the runc that was built beside our sources, where there is one, else the first on PATH.
    """
    built = os.path.join(os.path.dirname(program.source_folder()), _BUILT_RUNC)
    if setting == DEFAULTS["oci.runtime"] and os.access(built, os.X_OK):
        return built
    return shutil.which(setting) or ""


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
    return any(name.startswith(f"sp{k:x}-") for _, name in socket.if_nameindex())


def _foreign(state_dir: str) -> str:
    """Return the name of something in the state folder that is not ours, if there is anything."""
    try:
        present = set(os.listdir(state_dir))
        if "lock" not in present:
            # A stranger's name, for a terminal.
            return ascii(min(present - _STATE))[1:-1] if present - _STATE else ""
        with open(os.path.join(state_dir, "lock"), "rb") as file:
            return "" if file.read(len(STATE_MARK)) in {b"", STATE_MARK} else "lock"
    except PermissionError:
        # Another user than root.
        return ""
    except OSError:
        return "lock"


def _mode_and_device(path: str) -> tuple[int, int]:
    """Return st_mode and st_rdev of what is at `path`; (0, 0): nothing."""
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return found.st_mode, found.st_rdev
    return 0, 0


def _resolvers(addresses: Sequence[str], block: IPv4Network) -> dict[str, str]:
    """Map each address to why it cannot be asked; `block`: where sandboxes' own resolver is.

    Sends nothing: connecting such a socket only looks at routes.
    """
    found = {}
    for shown in addresses:
        if contradictions.is_in(block, shown):
            found[shown] = "it lies in `network.block`: sandboxes' resolver would ask itself"
            continue
        host, port = split_address(shown)
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect((host, port))
            except OSError as error:
                found[shown] = error.strerror or str(error)
            else:
                found[shown] = ""
    return found


def _ids_taken() -> Iterator[ids.Ids]:
    """Yield users and groups of the machine, as far as it lists them (nsswitch.conf(5)), and subordinate ids."""
    for user in pwd.getpwall():
        yield ids.Ids(user.pw_uid, 1, f"is the user `{ascii(user.pw_name)[1:-1]}`")
    for group in grp.getgrall():
        yield ids.Ids(group.gr_gid, 1, f"is the group `{ascii(group.gr_name)[1:-1]}`")
    for path in ("/etc/subuid", "/etc/subgid"):
        yield from ids.subordinate(_text(path), path)


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


def _lacking(nft: str) -> tuple[str, ...]:
    """Return which features the kernel refuses when it is shown each alone."""
    shown = {name: _start([nft, "--check", "--file", "-"], features.script(name)) for name in features.FEATURES}
    return tuple(name for name, process in shown.items() if process is not None and _finish(process)[1])


def _cuts(ruleset: str) -> list[str]:
    """Return what firewalls of others cut off. Tables of the old iptables stand beside those of nftables."""
    try:
        rules = json.loads(ruleset or "{}")
    except ValueError:
        rules = {}
    if "filter" not in _text("/proc/net/ip_tables_names").split():
        return foreign.cuts(rules)
    reader = shutil.which("iptables-legacy-save")
    if reader is None:
        unread = "rules of the old iptables are loaded and cannot be read: `apt-get install iptables`, and look again"
        return [*foreign.cuts(rules), unread]
    process = _start([reader])
    return foreign.cuts(rules, _finish(process)[0] if process is not None else "")


def _start(command: list[str], say: str = "") -> "subprocess.Popen[str] | None":
    """Start a program, and say something to it that a pipe holds."""
    with contextlib.suppress(OSError):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(say)
            process.stdin.flush()
        return process
    return None


def _finish(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Return what a program printed, and its complaint if it failed."""
    try:
        out, err = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "", "no answer within 30 s"
    return out, "" if process.returncode == 0 else (err.strip() or f"status {process.returncode}")

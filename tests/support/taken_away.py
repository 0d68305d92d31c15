"""Each wall with what takes it away in a copy of the code, and the case of the catalogue that must then fail.

A wall that stands in the modules of both versions of control groups is taken out of both. Without some walls no sandbox
starts at all, so that no case can fail for the want of them: without the namespace of mounts the OCI runtime refuses
the configuration, without that of the network nobody reaches the runtime, and without `no_new_privs` runc may not give
up capabilities behind the filter of system calls.
"""

from pathlib import Path
from typing import NamedTuple

from support.weakened import Edit


class Wall(NamedTuple):
    """`case` fails without it. `quick`: it is tried in ordinary runs too."""

    case: str
    edits: tuple[Edit, ...]
    quick: bool = False


V1, V2, OCI = "walls/cgroups/v1.py", "walls/cgroups/v2.py", "walls/oci_config.py"
RENDER, REQUEST, RESPONSE = "network/firewall/render.py", "proxy/http1/request.py", "proxy/http1/response.py"
CALL, EXCHANGE, SUSPICION = "proxy/call.py", "proxy/exchange.py", "controller/suspicion.py"
_REFUSE = "\t\tip daddr @forbidden goto refuse_address\n"
_FORBIDDEN = (
    (
        RENDER,
        f"\t\tfib daddr type local goto refuse_address\n{_REFUSE}",
        "\t\tfib daddr type local goto refuse_address\n",
    ),
    (
        RENDER,
        f"\t\tct state invalid,untracked counter drop\n{_REFUSE}",
        "\t\tct state invalid,untracked counter drop\n",
    ),
)


def _wall(case: str, *edits: tuple[str, str, str], quick: bool = False) -> Wall:
    return Wall(case, tuple(Edit(*one) for one in edits), quick)


WALLS = {
    # --- resources
    "the limit of memory": _wall(
        "memfd",
        (V1, "for limit in (self._limit_sockets, self._limit_memory):", "for limit in (self._limit_sockets,):"),
        (V2, "self._limit_memory(tenant, limits.memory)", "pass"),
        quick=True,
    ),
    "the end of all when one was killed for memory": _wall(
        "memory_of_children",
        (V1, "            if kills and not done:\n                if starved", "            if False:\n                if starved"),
        (V2, '            files.write(os.path.join(sandbox, "memory.oom.group"), 1)\n', ""),
        (V2, "            if kills and not done:\n", "            if False:\n"),
    ),
    "the limit of sockets' memory": _wall(
        "kernel_memory",
        (V1, "for limit in (self._limit_sockets, self._limit_memory):", "for limit in (self._limit_memory,):"),
    ),
    "the limit of processes": _wall(
        "fork_bomb",
        (V1, 'files.write(self._file("pids", group, "pids.max"), limits.pids)', "pass"),
        (V2, 'files.write(os.path.join(tenant, "pids.max"), limits.pids)', "pass"),
    ),
    "that a limit of processes is told": _wall(
        "fork_bomb", ("controller/hits.py", 'self._meet(text, "pids", seen.refused - self.refused)', "pass")
    ),
    "that a limit of files is told": _wall(
        "inodes", ("walls/pressure.py", "inodes_full=tmp.f_ffree == 0", "inodes_full=False")
    ),
    "that a limit of open files is told": _wall(
        "descriptors", ("walls/pressure.py", "refused=refused, files_full=files_full)\n\n\ndef", "refused=refused, files_full=False)\n\n\ndef")
    ),
    "the quota of CPU time": _wall(
        "worker_threads",
        (V1, 'files.write(self._file("cpu", group, "cpu.cfs_quota_us"), quota)', "pass"),
        (V2, 'files.write(os.path.join(tenant, "cpu.max"), f"{quota} {PERIOD}")', "pass"),
    ),
    "the CPU seconds of a call": _wall("cpu_seconds", (SUSPICION, "if limit and used > limit * calls:", "if False:")),
    "the size of /tmp": _wall("tmp_bytes", (OCI, 'f"size={limits.tmp}", ', "")),
    "the inodes of /tmp": _wall("inodes", (OCI, ', f"nr_inodes={limits.tmp_inodes}"', "")),
    "that a child's open files are told": _wall(
        "descriptors", ("walls/pressure.py", "_children(runtime)[:_CHILDREN]", "_children(runtime)[:0]")
    ),
    "the limit of open files": _wall(
        "descriptors", (OCI, '_rlimit("RLIMIT_NOFILE", limits.files)', '_rlimit("RLIMIT_NOFILE", 4096)')
    ),
    "no core files": _wall("abort", (OCI, '("CORE", "MSGQUEUE"', '("MSGQUEUE"')),
    "the watch of blocked loops": _wall(
        "endless_loop",
        (
            SUSPICION,
            'self._desk.end(sandbox, "blocked", _blocked(sandbox, suspect, "while its CPU time grew"), now)',
            "pass",
        ),
    ),
    "the probe behind a deadline": _wall(
        "stop_self",
        (
            SUSPICION,
            'self._desk.end(sandbox, "blocked", _blocked(sandbox, suspect, "after a call\'s deadline"), now)',
            "pass",
        ),
    ),
    "the deadline": _wall(
        "callback_never",
        (CALL, "self.due = worker.now() + self.limits.deadline", 'self.due = float("inf")'),
    ),
    "the bound of output": _wall(
        "output_flood", ("collector/digest.py", "keep.spend(len(one.text) + RECORD_COST)", "pass")
    ),
    "what a record costs": _wall(
        "small_lines",
        (
            "collector/digest.py",
            "keep.spend(len(one.text) + RECORD_COST)",
            "keep.spend(len(one.text))",
        ),
    ),
    "plain text": _wall(
        "binary_output",
        ("logs/records.py", "_encode(safe_text(said.text))", '_encode(said.text.decode("utf-8", "replace"))'),
    ),
    "whose record it is": _wall(
        "forged_record",
        ("logs/programs.py", "return PREFIX + name if name in OURS or name.startswith(PREFIX) else name", "return name"),
    ),
    "the limit of bodies": _wall("endless_body", (CALL, "self.expect_body(self.limits.body)", "self.expect_body(1 << 40)")),
    "the limit of programs": _wall(
        "endless_program", ("proxy/gathering.py", "self._limit = settings.limits.code", "self._limit = 1 << 30")
    ),
    "the limit of heads": _wall(
        "huge_head",
        ("proxy/client.py", "parse_request(data, worker.host.max_head, self._seen)", "parse_request(data, 1 << 30, self._seen)"),
    ),
    "the time of heads": _wall(
        "slow_head",
        ("proxy/client.py", "self.due = worker.now() + worker.host.head_timeout", "self.due = NEVER"),
        ("proxy/client.py", "self.due = now + worker.host.head_timeout", "self.due = NEVER"),
    ),
    "the pause of answers that nobody reads": _wall(
        "slow_reader", (EXCHANGE, "self._client_full = not writable", "self._client_full = False")
    ),
    # --- escape
    "a read-only root": _wall("writable_places", (OCI, '"readonly": True}', '"readonly": False}')),
    "no places that outlive": _wall(
        "writable_places",
        (
            OCI,
            "        # Its address is the installation",
            '        _mount("/var/tmp", "tmpfs", "tmpfs", ["mode=1777"]),\n        # Its address is the installation',
        ),
    ),
    "a root of its own": _wall(
        "host_files",
        (
            OCI,
            "        # Its address is the installation",
            '        _mount("/etc", "bind", "/etc", ["bind", "ro"]),\n        # Its address is the installation',
        ),
    ),
    "a /proc of its own": _wall(
        "other_processes",
        (
            OCI,
            '_mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"])',
            '_mount("/proc", "rbind", "/proc", ["rbind"])',
        ),
    ),
    "no /sys": _wall(
        "sys",
        (
            OCI,
            "        # Its address is the installation",
            '        _mount("/sys", "rbind", "/sys", ["rbind", "ro"]),\n        # Its address is the installation',
        ),
    ),
    "no control groups": _wall(
        "control_groups",
        (
            OCI,
            "        # Its address is the installation",
            '        _mount("/sys", "rbind", "/sys/fs/cgroup", ["rbind", "ro"]),\n        # Its address is the installation',
        ),
    ),
    "the namespace of processes": _wall(
        "namespaces",
        (OCI, '            {"type": "pid"},\n', ""),
        (
            OCI,
            '_mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"])',
            '_mount("/proc", "rbind", "/proc", ["rbind"])',
        ),
    ),
    "the namespace of queues": _wall("namespaces", (OCI, '            {"type": "ipc"},\n', "")),
    "the namespace of names": _wall(
        "namespaces", (OCI, '            {"type": "uts"},\n', ""), (OCI, '        "hostname": "sandbox",\n', "")
    ),
    "the namespace of control groups": _wall("control_groups", (OCI, '            {"type": "cgroup"},\n', "")),
    "the namespace of users": _wall(
        "namespaces",
        (OCI, '            {"type": "user"},\n', ""),
        (OCI, '        "uidMappings": _mappings(identity),\n        "gidMappings": _mappings(identity),\n', ""),
        (OCI, '{"uid": USER, "gid": USER,', '{"uid": identity.user, "gid": identity.user,'),
    ),
    # One that is no slot's: processes of a slot that is free again are found to be left behind.
    "a user of its own": _wall("user_ids", ("walls/identity.py", "host.slot_uid(slot)", "host.slot_uid(0 * slot) // 2")),
    "no capabilities": _wall(
        "privileges", (OCI, '"capabilities": {name: []', '"capabilities": {name: ["CAP_NET_RAW"]')
    ),
    "no user 0": _wall("privileges", (OCI, '{"uid": USER, "gid": USER,', '{"uid": 0, "gid": 0,')),
    "the filter of system calls": _wall(
        "system_calls",
        (OCI, '"seccomp": walls.seccomp,', '"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},'),
        quick=True,
    ),
    "the other tables of system calls": _wall(
        "system_calls",
        (
            "walls/seccomp/profile.py",
            '"architectures": [architecture],',
            '"architectures": [architecture, "SCMP_ARCH_X86", "SCMP_ARCH_X32"],',
        ),
    ),
    "namespaces for nobody": _wall(
        "mounts",
        (OCI, '"seccomp": walls.seccomp,', '"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},'),
    ),
    "masked paths": _wall("proc_secrets", (OCI, '"maskedPaths": list(procfs.MASKED)', '"maskedPaths": []')),
    "read-only paths": _wall("proc_secrets", (OCI, '"readonlyPaths": list(procfs.READ_ONLY)', '"readonlyPaths": []')),
    "the devices": _wall(
        "devices",
        (
            OCI,
            '_mount("/dev", "bind", f"{rootfs}/dev", ["bind", "ro", "nosuid", "noexec"])',
            '_mount("/dev", "rbind", "/dev", ["rbind", "nosuid", "noexec"])',
        ),
    ),
    "a bare environment": _wall(
        "environment", (OCI, '"NODE_ENV=production",', '"NODE_ENV=production", f"GROUP={group_path}",')
    ),
    "descriptors that are left out": _wall(
        "inherited_descriptors",
        ("engines/launch.py", "({0: null} |", '({0: os.open("/", os.O_RDONLY | os.O_CLOEXEC)} |'),
    ),
    # --- network
    "the list of forbidden addresses": _wall("metadata", *_FORBIDDEN),
    "the forbidden addresses, from Python": _wall("python_network", *_FORBIDDEN),
    "the forbidden addresses, from C#": _wall("csharp_network", *_FORBIDDEN),
    "private networks in the list": _wall("private_networks", ("model/forbidden.py", '        ("10.0.0.0/8", "private"),\n', "")),
    "many in the list": _wall("private_networks", ("model/forbidden.py", '        ("224.0.0.0/4", "multicast"),\n', "")),
    "neighbours in the list": _wall(
        "neighbours",
        ("model/forbidden.py", '        ("198.18.0.0/15", "benchmarking; where sandboxes live"),\n', ""),
        (RENDER, "if not any(own.subnet_of(network) for network in found):", "if not found:"),
    ),
    "the host's addresses": _wall(
        "host_addresses",
        (RENDER, "\t\tfib daddr type local goto refuse_address\n\t\tip daddr @forbidden goto", "\t\tip daddr @forbidden goto"),
        (RENDER, "\tchain to_host {{\n", "\tchain to_host {{\n\t\taccept\n"),
    ),
    "no IPv6": _wall("ipv6", ("network/namespaces.py", 'file.write("1")', 'file.write("0")')),
    "that refusals are told": _wall(
        "refused_flood", (RENDER, "\t\tupdate @hit_address_refused {{ ip saddr }}\n", "")
    ),
    # --- exchange
    "one length a request": _wall(
        "smuggling", (REQUEST, 'raise RuleError("there is more than one Content-Length")', "pass"), quick=True
    ),
    "a length or chunks": _wall(
        "smuggling", (REQUEST, 'raise RuleError("there are both Transfer-Encoding and Content-Length")', "pass")
    ),
    "the one coding": _wall("smuggling", (REQUEST, 'if value.lower() != b"chunked":', "if False:")),
    "one line a field": _wall(
        "smuggling", ("proxy/http1/_grammar.py", 'rb"(%b++):(%b*+)"', 'rb"[ \\t]*(%b++)[ \\t]*:(%b*+)"')
    ),
    "plain numbers": _wall(
        "smuggling",
        ("proxy/http1/_grammar.py", "if not value.isdigit():", 'if not value.lstrip(b"+").isdigit():'),
    ),
    "the size of a chunk": _wall(
        "smuggling", ("proxy/http1/body.py", '_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})', '_SIZE_LINE = re.compile(rb"(?:0x)?([0-9A-Fa-f]{1,16})')
    ),
    "the end of a chunk": _wall(
        "smuggling",
        ("proxy/http1/body.py", 'raise RuleError("a chunk\'s data is not followed by CR LF")', "self.finished = True; return pieces"),
    ),
    "one length an answer": _wall(
        "odd_answers", (RESPONSE, 'raise RuleError("there is more than one Content-Length")', "pass")
    ),
    "the bound of interim heads": _wall("odd_answers", (EXCHANGE, "if self._interims > MAX_INTERIMS:", "if self._interims > 1 << 30:")),
    "answers of the runtime alone": _wall(
        "odd_answers",
        (CALL, 'raise BrokenResponse("it did not come from the runtime (no x-sandpost-wire)")', "pass"),
    ),
    "nothing behind an answer": _wall(
        "raw_answer", (EXCHANGE, 'raise BrokenResponse("bytes follow the end of the answer")', "pass")
    ),
    "the length that was announced": _wall(
        "lying_length",
        ("proxy/http1/body.py", 'raise self._error(f"the body ended {self._left} bytes before its Content-Length")', "pass"),
    ),
    "headers of the platform": _wall(
        "speaks_for_the_platform",
        ("proxy/http1/render.py", 'elif name not in drop and (name < b"x-sandpost-" or name[:11] != b"x-sandpost-"):', "elif name not in drop:"),
        ("runtimes/node/response.js", "if (headers) this._header = withoutOurs(this._header, own.length);", ""),
    ),
    "paths as they are": _wall(
        "paths",
        ("proxy/http1/target.py", '    end = path.find(b"/", 1)\n', '    import posixpath\n\n    path = posixpath.normpath(path)\n    end = path.find(b"/", 1)\n'),
    ),
    "calls that end with their clients": _wall(
        "half_a_request",
        (EXCHANGE, "        self.ended(0)\n        self._release(reusable=False)\n        self.client.abort()", "        self.client.abort()"),
    ),
    # --- identity
    "a tenant's own key": _wall(
        "another_tenants_key", ("proxy/access.py", "check_call(self._reader.key(key_digest(key)), name, tenant)", "pass")
    ),
    "routes of the operator": _wall(
        "another_tenants_key", ("api/callers.py", '        if self.tenant is not None:\n            raise NotAuthorized("this', '        if False:\n            raise NotAuthorized("this')
    ),
}  # fmt: skip


def walls_of_this_host() -> dict[str, Wall]:
    """Return the walls but those that another version of control groups needs than this host has."""
    other = V1 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else V2
    return {name: wall for name, wall in WALLS.items() if any(edit.file != other for edit in wall.edits)}

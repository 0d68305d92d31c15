"""Mounts, roots, namespaces and device nodes, made of what is really there: by calls of a program of the tenant's own.

Weaker: root in the container may, and `mknod` of a disk is all that it takes.
Must: each is refused as forbidden or not there at all, not for want of what it names. What leads out by other ways is tried
as `system_calls`. On gVisor a user may have namespaces, which are of the sandbox's own kernel.
"""

import base64
import platform

from sandpost.selftest.case import Attacker, Case, Untried, expect
from sandpost.selftest.machine_code import MACHINE, Call, program, results
from sandpost.selftest.programs import NATIVE

_BIND, _REMOUNT, _RECURSIVE, _MOVE = 4096, 32, 16384, 8192
_BLOCK, _CHARACTER = 0o060600, 0o020600
_SDA, _MEM = 8 << 8, 1 << 8 | 1
_HERE = -100
_FIRST = 3
"""The descriptor of what the first call opens."""
KINDS = {
    "mounts": 0x20000, "times": 0x80, "control groups": 0x2000000, "names": 0x4000000, "queues": 0x8000000,
    "users": 0x10000000, "processes": 0x20000000, "networks": 0x40000000,
}  # fmt: skip
OPEN = Call(257, (_HERE, b"/proc/self/ns/mnt", 0))
CALLS = {
    "a file system on a folder of his own": Call(165, (b"none", b"/tmp/a", b"tmpfs", 0, 0)),
    "another proc": Call(165, (b"proc", b"/tmp/a", b"proc", 0, 0)),
    "the root, bound": Call(165, (b"/", b"/tmp/a", 0, _BIND | _RECURSIVE, 0)),
    "the root, writable": Call(165, (0, b"/", 0, _REMOUNT | _BIND, 0)),
    "/proc/sys, writable": Call(165, (0, b"/proc/sys", 0, _REMOUNT | _BIND, 0)),
    "/tmp, moved": Call(165, (b"/tmp", b"/home", 0, _MOVE, 0)),
    "/proc/kcore, uncovered": Call(166, (b"/proc/kcore", 2)),
    "/dev/null, uncovered": Call(166, (b"/dev/null", 2)),
    "/etc/resolv.conf, uncovered": Call(166, (b"/etc/resolv.conf", 2)),
    "a tree, opened to be mounted": Call(428, (_HERE, b"/", 1)),
    "another root": Call(155, (b"/tmp/a", b"/tmp/a/b")),
    "a folder as root": Call(161, (b"/tmp/a",)),
    "a disk": Call(133, (b"/tmp/sda", _BLOCK, _SDA)),
    "memory": Call(133, (b"/tmp/mem", _CHARACTER, _MEM)),
    "a disk, from a folder": Call(259, (_HERE, b"/tmp/sda", _BLOCK, _SDA)),
    "the host's name": Call(170, (b"taken", 5)),
    "the domain's name": Call(171, (b"taken", 5)),
    "the mounts of another": Call(308, (_FIRST, 0)),
    **{f"new {name}": Call(272, (flag,)) for name, flag in KINDS.items()},
}
PROGRAM = NATIVE + "fs.mkdirSync('/tmp/a/b', { recursive: true }); return native('%s')"
_REFUSALS = frozenset({-1, -38})
"""EPERM, ENOSYS."""


def attack(me: Attacker) -> str:
    if platform.machine() != MACHINE:
        raise Untried(f"its program is for {MACHINE}")
    made = program([OPEN, *CALLS.values()])
    found = me.inside(PROGRAM % base64.b64encode(made).decode())
    opened, *seen = results(base64.b64decode(found["output"]))
    expect(opened == _FIRST and len(seen) == len(CALLS), f"{opened}, {len(seen)} calls, signal {found['signal']}")
    passed = [
        f"{name}: {value}"
        for name, value in zip(CALLS, seen, strict=True)
        if value not in _REFUSALS and not (me.engine == "runsc" and name.startswith("new "))
    ]
    expect(not passed, f"not refused: {', '.join(passed)}")
    return f"{len(seen)} ways refused"


CASE = Case(part="escape", title="Mounts, namespaces, device nodes", attack=attack)

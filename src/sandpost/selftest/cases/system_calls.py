"""System calls past every library, by a program that the tenant brings along: those that were ways out elsewhere,
and any by the kernel's tables for 32-bit and x32 programs.

Weaker: what no library offers is thought to be out of reach; the kernel takes it all the same.
Must: each is refused, as if the kernel did not have it or as forbidden, whatever its arguments. On gVisor a kernel that
is not the host's answers, and may have some for its own processes.
"""

import base64
import json
import platform
from collections.abc import Sequence

from sandpost.selftest.case import Attacker, Case, Untried, expect
from sandpost.selftest.machine_code import BASE, MACHINE, Call, program, results
from sandpost.selftest.programs import NATIVE

_NEW_USER = 0x10000000
_NEW_NET = 0x40000000
_AF_NETLINK, _AF_PACKET, _AF_ALG, _AF_VSOCK, _AF_INET = 16, 17, 38, 40, 2
_RAW = 3
CALLS = {
    "mount": Call(165, (b"none", b"/tmp", b"tmpfs", 0, 0)),
    "umount2": Call(166, (b"/proc", 2)),
    "pivot_root": Call(155, (b"/tmp", b"/tmp")),
    "fsopen": Call(430, (b"tmpfs", 0)),
    "open_tree": Call(428, (-100, b"/", 1)),
    "move_mount": Call(429, (-1, b"", -1, b"", 0)),
    "mount_setattr": Call(442, (-100, b"/", 0, 0, 0)),
    "unshare of users": Call(272, (_NEW_USER,)),
    "unshare of networks": Call(272, (_NEW_NET,)),
    "setns": Call(308, (0, 0)),
    "clone into new users": Call(56, (_NEW_USER | 17, 0, 0, 0, 0)),
    "clone3": Call(435, (0, 0)),
    "ptrace": Call(101, (16, 1, 0, 0)),
    "process_vm_readv": Call(310, (1, 0, 0, 0, 0, 0)),
    "process_vm_writev": Call(311, (1, 0, 0, 0, 0, 0)),
    "pidfd_getfd": Call(438, (0, 0, 0)),
    "kcmp": Call(312, (1, 1, 0, 0, 0)),
    "bpf": Call(321, (0, 0, 0)),
    "perf_event_open": Call(298, (0, 0, -1, -1, 0)),
    "userfaultfd": Call(323, (1,)),
    "io_uring_setup": Call(425, (8, b"\0" * 120)),
    "keyctl": Call(250, (0, -3, 1, 0, 0)),
    "add_key": Call(248, (b"user", b"x", b"y", 1, -3)),
    "request_key": Call(249, (b"user", b"x", 0, -3)),
    "open_by_handle_at": Call(304, (-100, 0, 0)),
    "name_to_handle_at": Call(303, (-100, b"/", 0, 0, 0)),
    "init_module": Call(175, (0, 0, b"")),
    "finit_module": Call(313, (0, b"", 0)),
    "delete_module": Call(176, (b"x", 0)),
    "kexec_load": Call(246, (0, 0, 0, 0)),
    "kexec_file_load": Call(320, (0, 0, 0, b"", 0)),
    "reboot": Call(169, (0xFEE1DEAD, 672274793, 0, 0)),
    "swapon": Call(167, (b"/tmp/x", 0)),
    "syslog": Call(103, (3, 0, 0)),
    "acct": Call(163, (b"/tmp/x",)),
    "quotactl": Call(179, (0, 0, 0, 0)),
    "iopl": Call(172, (3,)),
    "ioperm": Call(173, (0, 1, 1)),
    "settimeofday": Call(164, (b"\0" * 16, 0)),
    "mbind": Call(237, (0, 0, 0, 0, 0, 0)),
    "vmsplice": Call(278, (1, 0, 0, 0)),
    "lookup_dcookie": Call(212, (0, 0, 0)),
    "packet socket": Call(41, (_AF_PACKET, _RAW, 0)),
    "raw socket": Call(41, (_AF_INET, _RAW, 1)),
    "socket of the kernel's crypto": Call(41, (_AF_ALG, 5, 0)),
    "socket to the host of a virtual machine": Call(41, (_AF_VSOCK, 1, 0)),
    "netfilter socket": Call(41, (_AF_NETLINK, _RAW, 12)),
    "audit socket": Call(41, (_AF_NETLINK, _RAW, 9)),
    "a call of the future": Call(9999, ()),
}
REFUSALS = frozenset({-1, -38, -93, -97})
"""EPERM, ENOSYS, EPROTONOSUPPORT, EAFNOSUPPORT: refused before its arguments were looked at."""
OF_GVISOR = frozenset(
    {
        "unshare of users", "unshare of networks", "setns", "clone3", "process_vm_readv", "process_vm_writev",
        "pidfd_getfd", "perf_event_open", "keyctl", "add_key", "request_key", "open_by_handle_at", "name_to_handle_at",
        "syslog", "mbind", "packet socket", "raw socket",
    }
)  # fmt: skip
"""What its kernel makes by itself: with namespaces, keys and a network stack that are one sandbox's alone."""
_X32 = 0x40000000
"""Added to a number it means the table of x32, which has calls that the other one refuses."""
OTHER_TABLES = {
    "getpid by int 0x80": Call(20, old=True),
    "mount by int 0x80": Call(21, old=True),
    "getpid of x32": Call(_X32 | 39),
    "ptrace of x32": Call(_X32 | 521, (16, 1, 0, 0)),
    "write of x32": Call(_X32 | 1, (1, BASE, 4)),
}
_ENDED = frozenset({"SIGSYS", "SIGSEGV"})
"""What ends a program that goes where its kernel has no table, or the filter none."""
PROGRAM = NATIVE + "return [require('os').release(), ...%s.map(native)]"


def given(me: Attacker, asked: Sequence[str], seen: Sequence[int]) -> list[str]:
    """Return which of the calls were not refused, with what came back; fails if not all came back."""
    expect(len(seen) == len(asked), f"{len(seen)} of {len(asked)} calls came back")
    by_its_kernel = OF_GVISOR if me.engine == "runsc" else frozenset()
    return [
        f"{name}: {value}"
        for name, value in zip(asked, seen, strict=True)
        if value not in REFUSALS and name not in by_its_kernel
    ]


def attack(me: Attacker) -> str:
    if platform.machine() != MACHINE:
        raise Untried(f"its program is for {MACHINE}")
    programs = [list(CALLS.values()), *([call] for call in OTHER_TABLES.values())]
    kernel, found, *others = me.inside(
        PROGRAM % json.dumps([base64.b64encode(program(one)).decode() for one in programs])
    )
    expect(found["signal"] is None, f"ended by {found['signal']}")
    seen = results(base64.b64decode(found["output"]))
    passed = given(me, list(CALLS), seen)
    for name, one in zip(OTHER_TABLES, others, strict=True):
        came = results(base64.b64decode(one["output"]))
        if one["signal"] not in _ENDED and not (len(came) == 1 and came[0] in REFUSALS):
            passed.append(f"{name}: {came} {one['signal']}")
    if me.engine == "runsc":
        expect(kernel != platform.release(), f"the kernel is the host's: {kernel}")
    expect(not passed, f"not refused: {', '.join(passed)}")
    return f"{len(seen) + len(others)} calls refused"


CASE = Case(part="escape", title="System calls", attack=attack)

"""Renders the table as the `linux.seccomp` of an OCI configuration (runtime-spec, config-linux.md). Pure.

One architecture is named, the host's own: calls through any other table of the kernel (`int 0x80`, x32) are answered
by libseccomp's rule for foreign ones, which kills. A second one would double the filter, which every start compiles.
"""

import errno
from collections.abc import Mapping
from typing import Any

from sandpost.walls.seccomp.rules import U64, Checked, Condition, Group
from sandpost.walls.seccomp.table import ABSENT, CHECKED, GROUPS, LEGACY, LEGACY_CHECKED, NEWEST, PRETENDED

ARCHITECTURES: Mapping[str, str] = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
"""Machines, as uname(2) calls them, that the table is for, and the OCI name of each."""


def groups(machine: str) -> tuple[Group, ...]:
    """Return the groups of calls that are allowed on `machine` whatever their arguments."""
    return GROUPS + LEGACY if machine == "x86_64" else GROUPS


def checked(machine: str) -> tuple[Checked, ...]:
    """Return the calls whose arguments are looked at on `machine`."""
    return CHECKED + LEGACY_CHECKED if machine == "x86_64" else CHECKED


def render(machine: str) -> Mapping[str, Any]:
    """Return the OCI object for `machine`. Raises KeyError for one that the table is not for."""
    architecture = ARCHITECTURES[machine]
    allowed = [name for group in groups(machine) for name in group.calls]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": [architecture],
        "syscalls": [
            {"names": allowed, "action": "SCMP_ACT_ALLOW"},
            *({**rule, "action": "SCMP_ACT_ALLOW"} for call in checked(machine) for rule in _ways(call)),
            *({**rule, "action": "SCMP_ACT_ERRNO", "errnoRet": 0} for call in PRETENDED for rule in _ways(call)),
            {"names": list(ABSENT), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
            # Says what it would get without a rule: it is there to be the highest number of the filter.
            {"names": [NEWEST], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM},
        ],
    }


def _ways(call: Checked) -> list[dict[str, Any]]:
    return [{"names": [call.call], "args": [_argument(one) for one in way]} for way in call.ways]


def _argument(condition: Condition) -> dict[str, Any]:
    if condition.compare == "below":
        return {"index": condition.argument, "value": condition.value, "op": "SCMP_CMP_LT"}
    if condition.mask == U64:
        return {"index": condition.argument, "value": condition.value, "op": "SCMP_CMP_EQ"}
    return {
        "index": condition.argument,
        "value": condition.mask,
        "valueTwo": condition.value,
        "op": "SCMP_CMP_MASKED_EQ",
    }

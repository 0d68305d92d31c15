"""Renders rules of system calls as the program that seccomp(2) takes: classic BPF, `struct sock_filter`s. Pure.

The program looks at `struct seccomp_data`: the call's number, the architecture whose table it is of, and six
arguments of 64 bits, each read as two halves (little endian on both architectures). A call of another table than the
machine's own (`int 0x80`, x32) ends the process: nothing of ours makes one.
"""

import errno
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from sandpost.walls.seccomp.rules import U32, Checked, Condition, Group

ARCHITECTURES: Mapping[str, int] = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
"""AUDIT_ARCH_* by the machine, as uname(2) calls it."""
KILL, ALLOW = 0x8000_0000, 0x7FFF_0000
_ERRNO = 0x0005_0000
REFUSE, ABSENT = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
"""What seccomp(2) is told to do with a call (SECCOMP_RET_*)."""
_X32 = 0x4000_0000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_EQUAL, _AT_LEAST = 0x15, 0x35


class Step(NamedTuple):
    """One `struct sock_filter`; `yes` and `no` are how many steps a comparison skips."""

    code: int
    yes: int
    no: int
    value: int


def render(
    machine: str,
    numbers: Mapping[str, int],
    *,
    groups: Iterable[Group],
    checked: Iterable[Checked],
    absent: Iterable[str],
    newest: str,
) -> list[Step]:
    """Return the program. Calls in `absent` and those newer than `newest` get ENOSYS, all that is not named EPERM."""
    steps = [
        Step(_LOAD, 0, 0, _ARCHITECTURE),
        Step(_EQUAL, 1, 0, ARCHITECTURES[machine]),
        Step(_RETURN, 0, 0, KILL),
        Step(_LOAD, 0, 0, _NUMBER),
        Step(_AT_LEAST, 0, 1, _X32),
        Step(_RETURN, 0, 0, KILL),
        Step(_AT_LEAST, 0, 1, numbers[newest] + 1),
        Step(_RETURN, 0, 0, ABSENT),
    ]
    # First what the kernel must ask the program for each time; it remembers the numbers that are always allowed.
    for call in checked:
        body = _body(call)
        steps += [Step(_EQUAL, 1, 0, numbers[call.call]), *_skip(len(body)), *body]
    for group in groups:
        steps += [step for name in group.calls for step in _answer(numbers[name], ALLOW)]
    for name in absent:
        steps += _answer(numbers[name], ABSENT)
    steps.append(Step(_RETURN, 0, 0, REFUSE))
    return steps


def pack(steps: Sequence[Step]) -> bytes:
    """Return the bytes that the kernel reads, eight a step."""
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def _answer(number: int, answer: int) -> list[Step]:
    return [Step(_EQUAL, 0, 1, number), Step(_RETURN, 0, 0, answer)]


def _skip(count: int) -> list[Step]:
    # An unconditional jump reaches further than a comparison's 255.
    return [Step(0x05, 0, 0, count)]


def _body(call: Checked) -> list[Step]:
    """Return the steps of a call whose arguments are looked at: one way after another, then the refusal."""
    steps: list[Step] = []
    for way in call.ways:
        tests = [step for condition in way for step in _test(condition)]
        # A test that fails goes on behind this way: -1 stands for it until the length is known.
        left = len(tests)
        for offset, step in enumerate(tests):
            further = left - offset
            yes, no = (further if jump < 0 else jump for jump in (step.yes, step.no))
            steps.append(step._replace(yes=yes, no=no))
        steps.append(Step(_RETURN, 0, 0, ALLOW))
    return [*steps, Step(_RETURN, 0, 0, REFUSE)]


def _test(condition: Condition) -> list[Step]:
    low = _ARGUMENTS + 8 * condition.argument
    if condition.compare == "below":
        assert condition.value <= U32
        return [
            Step(_LOAD, 0, 0, low + 4),
            Step(_EQUAL, 0, -1, 0),
            Step(_LOAD, 0, 0, low),
            Step(_AT_LEAST, -1, 0, condition.value),
        ]
    steps = []
    for offset, shift in ((low + 4, 32), (low, 0)):
        mask, value = condition.mask >> shift & U32, condition.value >> shift & U32
        if mask or value:
            steps += [Step(_LOAD, 0, 0, offset), Step(_AND, 0, 0, mask), Step(_EQUAL, 0, -1, value)]
    return steps

"""The filter of system calls: what it answers is what the table says, here and in the kernel."""

import ctypes
import errno
import mmap
import os
import platform
import signal
import struct
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.kernel import calls as kernel_calls
from sandpost.kernel import seccomp
from sandpost.walls.own import calls
from sandpost.walls.own.filter import ABSENT, ALLOW, ARCHITECTURES, KILL, REFUSE, Step, pack, render
from sandpost.walls.own.numbers import MACHINES, numbers
from sandpost.walls.seccomp import ARCHITECTURES as OCI_NAMES
from sandpost.walls.seccomp import table
from sandpost.walls.seccomp.rules import U64, Checked, Condition
from support import libseccomp
from support.syscalls import PASSED

MACHINE = platform.machine()
PID = 4321
_libc = ctypes.CDLL(None, use_errno=True)


def steps_of(machine: str = MACHINE, pid: int = PID) -> list[Step]:
    """The widest of our filters: a part that serves, watches files and makes all kinds of sockets."""
    return render(
        machine,
        numbers(machine),
        groups=calls.groups(machine, serves=True, watches=True),
        checked=calls.checked((*calls.UNIX, *calls.TCP, *calls.TCP6, *calls.UDP), pid),
        absent=table.ABSENT,
        newest=table.NEWEST,
    )


def answer(steps: Sequence[Step], number: int, arguments: Sequence[int] = (), architecture: int = 0) -> int:
    """Run the program as the kernel would."""
    padded = [*(one & U64 for one in arguments), 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<iIQ6Q", number, architecture or ARCHITECTURES[MACHINE], 0, *padded)
    at = accumulator = 0
    while True:
        step = steps[at]
        at += 1
        match step.code:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, step.value)[0]
            case 0x54:
                accumulator &= step.value
            case 0x05:
                at += step.value
            case 0x15:
                at += step.yes if accumulator == step.value else step.no
            case 0x35:
                at += step.yes if accumulator >= step.value else step.no
            case 0x06:
                return step.value
            case code:
                raise AssertionError(f"{code:#x} is no step of ours")


@pytest.mark.parametrize("machine", MACHINES)
def test_the_kernel_would_take_the_program(machine: str) -> None:
    steps = steps_of(machine)
    assert len(steps) <= 4096
    assert len(pack(steps)) == 8 * len(steps)
    for at, step in enumerate(steps):
        further = step.value if step.code == 0x05 else max(step.yes, step.no)
        assert min(step.yes, step.no) >= 0
        assert at + 1 + further < len(steps) or step.code == 0x06
    assert steps[-1].code == 0x06


def test_every_call_gets_what_the_table_says() -> None:
    steps, known = steps_of(), numbers(MACHINE)
    allowed = {known[name] for group in calls.groups(MACHINE, serves=True, watches=True) for name in group.calls}
    checked = {known[one.call] for one in calls.checked((), PID)}
    absent = {known[name] for name in table.ABSENT}
    for number in set(range(600)) - checked:
        newer = number > known[table.NEWEST]
        wanted = ALLOW if number in allowed else ABSENT if number in absent or newer else REFUSE
        assert answer(steps, number, [0] * 6) == wanted, number


def test_a_call_of_another_table_ends_the_process() -> None:
    steps = steps_of()
    assert answer(steps, 0, architecture=0x4000_0003) == KILL
    assert answer(steps, 0x4000_0000 | 39) == KILL


words = st.integers(0, U64) | st.sampled_from([0, 1, 2, 3, 4, 7, 10, 16, 26, PID, 0x10000, 0xFFFFFFFF, 1 << 32, U64])


@given(st.lists(words, min_size=6, max_size=6))
def test_arguments_are_judged_as_the_rules_say(arguments: list[int]) -> None:
    steps, known = steps_of(), numbers(MACHINE)
    for one in calls.checked((*calls.UNIX, *calls.TCP, *calls.TCP6, *calls.UDP), PID):
        wanted = ALLOW if one.allows(tuple(arguments)) else REFUSE
        assert answer(steps, known[one.call], arguments) == wanted, one.call


conditions = st.builds(
    Condition,
    st.integers(0, 5),
    words,
    words,
    st.just("equal"),
) | st.builds(Condition, st.integers(0, 5), st.integers(0, 0xFFFFFFFF), st.just(U64), st.just("below"))


@given(
    st.lists(st.lists(conditions, max_size=3).map(tuple), max_size=3).map(tuple),
    st.lists(words, min_size=6, max_size=6),
)
def test_any_rule_means_the_same_as_a_program(ways: tuple[tuple[Condition, ...], ...], arguments: list[int]) -> None:
    one = Checked("read", "any", ways)
    steps = render(MACHINE, {"read": 0, "last": 9}, groups=(), checked=[one], absent=(), newest="last")
    assert answer(steps, 0, arguments) == (ALLOW if one.allows(tuple(arguments)) else REFUSE)


@pytest.mark.parametrize(
    ("name", "arguments", "good"),
    [
        ("socket", (1, 5, 0), True),
        ("socket", (2, 1 | 0o2004000, 6), True),
        ("socket", (2, 3, 0), False),
        ("socket", (2, 1, 262), False),
        ("socket", (16, 3, 0), False),
        ("socket", (17, 3, 0), False),
        ("mmap", (0, 4096, 3, 0x22, U64, 0), True),
        ("mmap", (0, 4096, 5, 2, 3, 0), True),
        ("mmap", (0, 4096, 7, 0x22, U64, 0), False),
        ("mprotect", (0, 4096, 3), True),
        ("mprotect", (0, 4096, 5), False),
        ("clone", (0x3D0F00,), True),
        ("clone", (17,), False),
        ("clone", (0x10000000 | 0x3D0F00,), False),
        ("kill", (PID, 9), True),
        ("kill", (1, 0), True),
        ("kill", (1, 9), False),
        ("tgkill", (PID, PID, 6), True),
        ("tgkill", (1, 1, 6), False),
        ("fcntl", (3, 8, 1), False),
        ("prctl", (4, 1), False),
        ("prlimit64", (0, 7, 0, 1), True),
        ("prlimit64", (PID + 1, 7, 1, 0), False),
        ("setsockopt", (3, 1, 15), True),
        ("setsockopt", (3, 1, 26), False),
        ("setsockopt", (3, 6, 31), False),
        ("ioctl", (0, 0x5412), False),
    ],
)
def test_what_matters_is_judged_right(name: str, arguments: tuple[int, ...], good: bool) -> None:
    assert answer(steps_of(), numbers(MACHINE)[name], arguments) == (ALLOW if good else REFUSE)


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_the_kernels(machine: str) -> None:
    for name, number in numbers(machine).items():
        assert libseccomp.name(OCI_NAMES[machine], number) == name


@pytest.mark.parametrize("machine", MACHINES)
def test_every_name_has_a_number_and_stands_once(machine: str) -> None:
    known = numbers(machine)
    allowed = [name for group in calls.groups(machine, serves=True, splices=True, watches=True) for name in group.calls]
    named = [*allowed, *(one.call for one in calls.checked((), PID)), *table.ABSENT, table.NEWEST]
    assert len(named) == len(set(named)) == len(known) == len(set(known.values()))
    assert set(named) == set(known)
    assert max(known.values()) == known[table.NEWEST]


# --- in the kernel ----------------------------------------------------------------------------------------------


def in_child(work: Callable[[], None], *, filtered: bool = True) -> int:
    """Do `work` behind the filter in a process of its own; return its wait status: 0 if all was as it should be."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if filtered:
                kernel_calls.forbid_new_privileges()
                seccomp.install(pack(steps_of(pid=os.getpid())))
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def test_every_call_that_is_not_in_the_table_is_refused_by_the_kernel() -> None:
    known = numbers(MACHINE)
    named = {known[one.call] for one in calls.checked((), PID)}
    named |= {known[name] for group in calls.groups(MACHINE, serves=True, watches=True) for name in group.calls}

    def work() -> None:
        # Pointers that lead nowhere: what slipped through would fail by them.
        bad = [ctypes.c_void_p(-1)] * 6
        for number in set(range(600)) - named - PASSED.keys():
            late = number > known[table.NEWEST] or number in {known[name] for name in table.ABSENT}
            ctypes.set_errno(0)
            assert _libc.syscall(number, *bad) == -1, number
            assert ctypes.get_errno() == (errno.ENOSYS if late else errno.EPERM), number

    assert in_child(work) == 0


def test_the_other_tables_of_the_kernel_are_closed() -> None:
    # mov eax, 20 (getpid of the 32-bit table); int 0x80; ret
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    old = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    for work in (lambda: _libc.syscall(0x4000_0000 | 39), old):
        assert os.WTERMSIG(in_child(work)) == signal.SIGSYS
        # x32 is refused, and ia32 works, where there is no filter: the process lives.
        assert os.WIFEXITED(in_child(work, filtered=False))


def test_threads_that_run_already_are_filtered_too() -> None:
    begin, results = threading.Event(), list[int]()

    def look() -> None:
        begin.wait(10)
        _libc.syscall(numbers(MACHINE)["clone3"], None, 0)
        results.append(ctypes.get_errno())
        results.append(0 if _libc.ptrace(0, 0, 0, 0) == 0 else ctypes.get_errno())

    def work() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        kernel_calls.forbid_new_privileges()
        seccomp.install(pack(steps_of(pid=os.getpid())))
        begin.set()
        thread.join()
        assert results == [errno.ENOSYS, errno.EPERM]

    assert in_child(work, filtered=False) == 0

"""The table of system calls as values, and what libseccomp makes of it, for both architectures."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.walls.seccomp import ARCHITECTURES, render
from sandpost.walls.seccomp.profile import checked, groups
from sandpost.walls.seccomp.rules import Checked, Condition, calls
from sandpost.walls.seccomp.table import ABSENT, LEGACY, LEGACY_CHECKED, NEWEST, PRETENDED
from support import libseccomp
from support.libseccomp import ALLOW, ERRNO, KILL, Program
from support.syscalls import EVERYTHING, NOTHING, Call, expected

PROGRAMS = {machine: Program(render(machine)) for machine in ARCHITECTURES}
EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
NEVER = calls("""
    unshare setns mount umount2 pivot_root chroot move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr
    swapon swapoff reboot kexec_load kexec_file_load init_module finit_module delete_module
    bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register io_setup io_submit
    keyctl add_key request_key ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd process_madvise
    open_by_handle_at name_to_handle_at splice tee vmsplice sync syncfs mincore readahead seccomp acct quotactl
    settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname syslog fanotify_init
    setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset vhangup
    mbind set_mempolicy migrate_pages move_pages shmget shmat semget msgget mq_open landlock_create_ruleset
    sched_setscheduler sched_setparam sched_setattr ioprio_set remap_file_pages lookup_dcookie nfsservctl memfd_secret
""")
NEVER_X86 = calls("iopl ioperm modify_ldt uselib ustat sysfs _sysctl create_module get_kernel_syms query_module")


def names(machine: str) -> list[str]:
    listed = [name for group in groups(machine) for name in group.calls]
    return [*listed, *(call.call for call in checked(machine))]


def number(machine: str, name: str) -> int:
    return libseccomp.number(ARCHITECTURES[machine], name)


def answer(machine: str, name: str, arguments: tuple[int, ...] = NOTHING) -> int:
    return PROGRAMS[machine].answer(number(machine, name), arguments)


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_every_call_exists_there_and_stands_in_the_table_once(machine: str) -> None:
    assert [name for name in names(machine) if number(machine, name) < 0] == []
    assert len(names(machine)) == len(set(names(machine)))
    assert not set(ABSENT) & set(names(machine))


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_nothing_waits_for_a_disk(machine: str) -> None:
    for name in ("fsync", "fdatasync", "sync_file_range"):
        assert {answer(machine, name, each) for each in (NOTHING, EVERYTHING)} == {ERRNO | 0}, name
    assert answer(machine, "msync", (0, 4096, 4, 0, 0, 0)) == ERRNO | 0
    assert answer(machine, "msync", (0, 4096, 1, 0, 0, 0)) == ALLOW


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_no_call_is_newer_than_the_newest(machine: str) -> None:
    newest = number(machine, NEWEST)
    assert newest == 450
    assert all(number(machine, name) < newest for name in [*names(machine), *ABSENT])
    assert all(reason for reason in [group.reason for group in groups(machine)] + [c.reason for c in checked(machine)])


def test_calls_of_x86_64_alone_are_unknown_elsewhere() -> None:
    legacy = [name for group in LEGACY for name in group.calls] + [call.call for call in LEGACY_CHECKED]
    assert [name for name in legacy if number("aarch64", name) >= 0] == []


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_was_a_way_out_elsewhere_is_refused(machine: str) -> None:
    for name in NEVER + (NEVER_X86 if machine == "x86_64" else ()):
        assert number(machine, name) >= 0 or name in {"nfsservctl", "lookup_dcookie"}, name
        if number(machine, name) >= 0:
            assert {answer(machine, name, each) for each in (NOTHING, EVERYTHING)} == {EPERM}, name


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_libc_falls_back_from_clone3(machine: str) -> None:
    assert answer(machine, "clone3") == ENOSYS


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_calls_of_other_tables_kill(machine: str) -> None:
    i386, arm = 0x40000003, 0x40000028
    for foreign in (i386, arm, *(token for token in libseccomp.TOKENS.values())):
        if foreign != libseccomp.TOKENS[ARCHITECTURES[machine]]:
            assert {PROGRAMS[machine].answer(nr, NOTHING, foreign) for nr in range(500)} == {KILL}
    if machine == "x86_64":
        x32 = range(1 << 30, (1 << 30) + 1000)
        assert {PROGRAMS[machine].answer(nr, each) for nr in x32 for each in (NOTHING, EVERYTHING)} == {KILL}


@pytest.mark.parametrize(
    ("name", "arguments", "passes"),
    [
        ("clone", (17,), True),
        ("clone", (0x3D0F00,), True),
        ("clone", (0x10000000 | 17,), False),
        ("clone", (0x20000 | 17,), False),
        ("clone", (0x40000000 | 17,), False),
        ("socket", (1, 0x80801, 0), True),
        ("socket", (2, 0x80801, 0), True),
        ("socket", (10, 2, 17), True),
        ("socket", (16, 0x80003, 0), True),
        ("socket", (16, 3, 4), False),  # NETLINK_SOCK_DIAG
        ("socket", (17, 3, 0x300), False),  # AF_PACKET
        ("socket", (2, 3, 255), False),  # SOCK_RAW
        ("socket", (2, 2, 1), False),  # ICMP
        ("socket", (2, 1, 132), False),  # SCTP
        ("socket", (2, 6, 0), False),  # DCCP
        ("socket", (38, 5, 0), False),  # AF_ALG
        ("socket", (40, 1, 0), False),  # AF_VSOCK
        ("socketpair", (1, 1, 0), True),
        ("socketpair", (30, 1, 0), False),  # AF_TIPC
        ("ioctl", (0, 0x5401), True),
        ("ioctl", (0, 0x5412), False),  # TIOCSTI
        ("ioctl", (0, 0x1_0000_5412), False),  # the same, as the kernel sees it
        ("ioctl", (0, 0xFFFF_FFFF_0000_5412), False),
        ("ioctl", (0, 0x541C), False),  # TIOCLINUX
        ("ioctl", (0, 0x5423), False),  # TIOCSETD
        ("prctl", (15,), True),
        ("prctl", (22,), False),  # PR_SET_SECCOMP
        ("prctl", (35,), False),  # PR_SET_MM
        ("prctl", (0x59616D61,), False),  # PR_SET_PTRACER
        ("prctl", (59,), False),  # PR_SET_SYSCALL_USER_DISPATCH
        ("personality", (0,), True),
        ("personality", (0xFFFF_FFFF_FFFF_FFFF,), True),
        ("personality", (0x0040000,), False),  # ADDR_NO_RANDOMIZE
        ("personality", (0x0100000,), False),  # MMAP_PAGE_ZERO
        ("mmap", (0, 4096, 7, 0x22), True),
        ("mmap", (0, 4096, 3, 0x40022), False),  # MAP_HUGETLB
        ("memfd_create", (0, 3), True),
        ("memfd_create", (0, 7), False),
        ("mknodat", (0, 0, 0o010644), True),
        ("mknodat", (0, 0, 0o020644), False),
        ("mknodat", (0, 0, 0o060644), False),
        ("fadvise64", (0, 0, 0, 2), True),
        ("fadvise64", (0, 0, 0, 4), False),
        ("inotify_add_watch", (3, 0, 0xFC6), True),  # as libuv does
        ("inotify_add_watch", (3, 0, 0x20), False),  # IN_OPEN
        ("inotify_add_watch", (3, 0, 0x20000001), False),  # IN_MASK_ADD, IN_ACCESS
        ("inotify_add_watch", (3, 0, 0x1_0000_0010), False),  # IN_CLOSE_NOWRITE, as the kernel sees it
        ("fcntl", (3, 2, 1), True),
        ("fcntl", (3, 37, 0), True),
        ("fcntl", (3, 1030, 10), True),
        ("fcntl", (3, 1026, 0x8000_0001), False),  # F_NOTIFY, DN_ACCESS
        ("fcntl", (3, 0x1_0000_0402, 1), False),  # the same, as the kernel sees it
        ("preadv2", (3, 0, 1, 0, 0, 0), True),
        ("preadv2", (3, 0, 1, 0, 0, 8), False),  # RWF_NOWAIT
        ("preadv2", (3, 0, 1, 0, 0, 0x1_0000_0009), False),
        ("setsockopt", (0, 6, 1), True),
        ("setsockopt", (0, 1, 15), True),
        ("setsockopt", (0, 41, 26), True),
        ("setsockopt", (0, 6, 31), False),  # TCP_ULP
        ("setsockopt", (0, 1, 26), False),  # SO_ATTACH_FILTER
        ("setsockopt", (0, 1, 51), False),  # SO_ATTACH_REUSEPORT_CBPF
        ("setsockopt", (0, 0, 64), False),  # IPT_SO_SET_REPLACE
        ("setsockopt", (0, 17, 100), False),  # UDP_ENCAP
        ("setsockopt", (0, 282, 1), False),  # SOL_TLS
    ],
)
@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_arguments_decide(machine: str, name: str, arguments: tuple[int, ...], passes: bool) -> None:
    given = (*arguments, *NOTHING)[:6]
    assert answer(machine, name, given) == (ALLOW if passes else EPERM)


@st.composite
def calls_with_arguments(draw: st.DrawFn) -> tuple[str, Checked, tuple[int, ...]]:
    """A checked call with arguments near those that one of its ways asks for."""
    machine = draw(st.sampled_from(sorted(ARCHITECTURES)))
    call = draw(st.sampled_from(checked(machine)))
    arguments = list(draw(st.tuples(*[st.sampled_from((0, 1, (1 << 64) - 1)) for _ in range(6)])))
    for condition in draw(st.sampled_from(call.ways)):
        arguments[condition.argument] = draw(near(condition))
    return machine, call, tuple(arguments)


def near(condition: Condition) -> st.SearchStrategy[int]:
    """Values that meet the condition, and those that differ from them in a bit or by one."""
    values = [condition.value, condition.value | ~condition.mask & ((1 << 64) - 1), max(condition.value - 1, 0)]
    bits = st.sampled_from([0, *(1 << bit for bit in range(64))])
    return st.builds(lambda value, bit: value ^ bit, st.sampled_from(values), bits)


@given(calls_with_arguments())
def test_the_filter_decides_as_the_table_says(sample: tuple[str, Checked, tuple[int, ...]]) -> None:
    machine, call, arguments = sample
    pretended = any(one.call == call.call and one.allows(arguments) for one in PRETENDED)
    otherwise = ERRNO | 0 if pretended else EPERM
    assert answer(machine, call.call, arguments) == (ALLOW if call.allows(arguments) else otherwise)


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_every_number_gets_what_the_table_says(machine: str) -> None:
    answers = {"allowed": ALLOW, "pretended": ERRNO | 0, "EPERM": EPERM, "ENOSYS": ENOSYS, "killed": KILL}
    for nr in range(number(machine, NEWEST) + 1):
        for arguments in (NOTHING, EVERYTHING):
            call = Call(nr, arguments)
            assert PROGRAMS[machine].answer(nr, arguments) == answers[expected(machine, call)], call


def test_no_way_looks_at_an_argument_twice() -> None:
    # OCI runtimes take two conditions on one argument for alternatives.
    for machine in ARCHITECTURES:
        for rule in render(machine)["syscalls"]:
            seen = [one["index"] for one in rule.get("args", [])]
            assert len(seen) == len(set(seen))


def test_another_architecture_has_no_table() -> None:
    with pytest.raises(KeyError):
        render("riscv64")

"""The system calls that our own parts may make: an allow-list with its reasons. What is not in it gets EPERM. Pure.

It is narrower than a sandbox's (`walls.seccomp.table`), where programs are to find an ordinary Linux; what is absent or
too new gets ENOSYS here too.

The groups are what a class of calls is for, not what a trace has seen: a library's next release may take another
call of the same group, and what it gets refused beyond them it does without. A taken-over part must not start a
program, become a second process, reach into, signal or trace another one, name a file by a link that root may follow,
or talk to the large and young parts of the kernel (`bpf`, `perf_event_open`, `userfaultfd`, `io_uring_*`, `keyctl`,
new namespaces, mounts, modules, kexec, netlink, packet sockets): all of that is out by not being here.

Sources: syscalls(2), seccomp(2) and the pages of each call.
"""

from sandpost.walls.seccomp import table
from sandpost.walls.seccomp.rules import U32, Checked, Group, Way, any_of, calls, equal, masked

_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_TYPE = 0xF
_STREAM, _DGRAM = 1, 2
_TCP, _UDP = 6, 17
_PROT_WRITE, _PROT_EXEC = 0x2, 0x4
_CLONE_THREAD = 0x0001_0000
_CLONE_NEW = 0x7E02_0000
"""All flags that make namespaces."""

GROUPS = (
    Group(
        "waiting and moving bytes; the most frequent come first, before Linux 5.11 a filter is read in order each time",
        calls(
            "epoll_pwait epoll_ctl recvfrom sendto read write recvmsg sendmsg futex close clock_gettime readv"
            " writev epoll_pwait2 epoll_create1 ppoll pselect6 pipe2 eventfd2 timerfd_create timerfd_settime"
            " timerfd_gettime nanosleep clock_nanosleep clock_getres gettimeofday recvmmsg sendmmsg shutdown"
        ),
    ),
    Group(
        "files that are open",
        calls(
            "pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek close_range dup dup3 flock fsync fdatasync"
            " ftruncate fallocate fadvise64"
        ),
    ),
    Group(
        "files by their names, which mounts, Landlock and the user decide about; no links, no devices, no FIFOs",
        calls(
            "openat openat2 newfstatat fstat statx statfs fstatfs faccessat faccessat2 readlinkat getdents64 getcwd"
            " mkdirat unlinkat renameat renameat2 fchmod fchmodat fchown fchownat utimensat umask"
        ),
    ),
    Group("memory of its own", calls("munmap mremap madvise brk msync membarrier")),
    Group(
        "threads, and what libc does for each",
        calls(
            "set_robust_list get_robust_list rseq set_tid_address gettid sched_yield sched_getaffinity"
            " sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min getcpu exit exit_group"
            " restart_syscall"
        ),
    ),
    Group(
        "signals that come in",
        calls("rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigpending rt_sigtimedwait sigaltstack"),
    ),
    Group(
        "who one is and what one has used; nothing that would change it",
        calls(
            "getpid getppid getuid geteuid getgid getegid getresuid getresgid getgroups getpgid getsid getrlimit"
            " getrusage times capget"
        ),
    ),
    Group("chance, and what machine this is", calls("getrandom uname sysinfo")),
    Group("sockets that are there", calls("connect getsockname getpeername getsockopt")),
)

SERVING = Group("sockets that others connect to", calls("bind listen accept accept4"))
"""For parts that serve."""

SPLICING = Group("bytes from FIFOs to files", calls("splice"))
"""For the part that takes what sandboxes print."""

WATCHING = Group("being told of changes to files", calls("inotify_init1 inotify_add_watch inotify_rm_watch"))
"""For parts that follow what others write."""

LEGACY = Group(
    "older names of calls above, which x86_64 still has and libc still uses",
    calls(
        "epoll_wait poll select open creat stat lstat access readlink getdents mkdir rmdir unlink rename chmod chown"
        " lchown utime utimes futimesat pipe dup2 eventfd epoll_create time getpgrp"
    ),
)
"""Calls of x86_64 alone."""

CHECKED = (
    # As in a sandbox: pairs of unix sockets; options that neither bring programs into the kernel nor load modules.
    *(one for one in table.CHECKED if one.call in {"socketpair", "setsockopt"}),
    Checked(
        "mmap",
        "memory is written or run, never both: what came in from outside cannot become code. Code comes from files,"
        " and where a part can write files nothing can be run (`noexec`)",
        ((masked(2, _PROT_EXEC, 0),), (masked(2, _PROT_WRITE, 0),)),
    ),
    Checked("mprotect", "the same: nothing becomes code later", ((masked(2, _PROT_EXEC, 0),),)),
    Checked(
        "clone",
        "threads, no processes: a part has no children once it serves",
        ((masked(0, _CLONE_NEW | _CLONE_THREAD, _CLONE_THREAD),),),
    ),
    Checked(
        "fcntl",
        "descriptors, flags, locks. Not F_SETOWN and F_SETSIG, by which the kernel sends a signal of one's choice to a"
        " process of one's choice",
        any_of(
            1,
            mask=U32,
            F_DUPFD=0,
            F_GETFD=1,
            F_SETFD=2,
            F_GETFL=3,
            F_SETFL=4,
            F_GETLK=5,
            F_SETLK=6,
            F_SETLKW=7,
            F_OFD_GETLK=36,
            F_OFD_SETLK=37,
            F_OFD_SETLKW=38,
            F_DUPFD_CLOEXEC=1030,
            F_SETPIPE_SZ=1031,
            F_GETPIPE_SZ=1032,
        ),
    ),
    Checked(
        "ioctl",
        "what libc and libuv ask of a descriptor; nothing of terminals but whether it is one, nothing of devices",
        any_of(1, mask=U32, TCGETS=0x5401, FIONREAD=0x541B, FIONBIO=0x5421, FIONCLEX=0x5450, FIOCLEX=0x5451),
    ),
    Checked(
        "prctl",
        "names of threads and of memory. Not PR_SET_DUMPABLE: workers of one user shall not open to one another",
        any_of(0, mask=U32, PR_SET_NAME=15, PR_GET_NAME=16, PR_SET_VMA=0x53564D41),
    ),
    Checked("prlimit64", "limits of its own, which it can lower; not of others of its user", ((equal(0, 0),),)),
)


def _inet(family: int, kind: int, protocol: int) -> tuple[Way, ...]:
    return tuple((equal(0, family), masked(1, _SOCK_TYPE, kind), equal(2, number)) for number in (0, protocol))


UNIX: tuple[Way, ...] = ((equal(0, _AF_UNIX),),)
TCP = _inet(_AF_INET, _STREAM, _TCP)
TCP6 = _inet(_AF_INET6, _STREAM, _TCP)
UDP = _inet(_AF_INET, _DGRAM, _UDP)
UDP6 = _inet(_AF_INET6, _DGRAM, _UDP)
"""Sockets that a part may make. Protocols too are named: another one makes the kernel load its module (SCTP, MPTCP)."""


def groups(machine: str, *, serves: bool, splices: bool = False, watches: bool = False) -> tuple[Group, ...]:
    """Return the groups of calls that are allowed whatever their arguments.

    `serves`: others connect to the part; `splices`: it moves bytes from FIFOs to files; `watches`: it follows what
    others write.
    """
    wanted = ((serves, SERVING), (splices, SPLICING), (watches, WATCHING))
    found = (*GROUPS, *(group for wish, group in wanted if wish))
    return (*found, LEGACY) if machine == "x86_64" else found


def checked(sockets: tuple[Way, ...], pid: int) -> tuple[Checked, ...]:
    """Return the calls whose arguments are looked at, for the process `pid` that may make those sockets."""
    return (
        *CHECKED,
        Checked("socket", "the families, types and protocols that the part has a use for", sockets),
        Checked("tgkill", "signals to itself, as abort(3) and raise(3) send them; to nobody else", ((equal(0, pid),),)),
        Checked("kill", "the same; or signal 0, which asks if one lives", ((equal(0, pid),), (equal(1, 0),))),
    )

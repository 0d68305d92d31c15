"""The table: which system calls a sandbox may make, and why. What is not in it gets EPERM. Pure.

What stays out, and why it is not missed:

- new namespaces, mounts, roots and swap; modules, kexec, reboot; clocks, quotas, accounting: the host's to decide;
- `bpf`, `perf_event_open`, `userfaultfd`, `io_uring_*`, `io_*`, `keyctl` and its kin, `fanotify_*`, `seccomp`,
  `landlock_*`: large or young parts of the kernel, where its holes were; libuv does without io_uring when refused;
- `ptrace`, `process_vm_*`, `kcmp`, `pidfd_getfd`, `process_madvise`: what reaches into other processes;
- `open_by_handle_at`, `name_to_handle_at`: files past every path;
- `splice`, `tee`, `vmsplice`: pages shared between files and pipes (CVE-2022-0847);
- System V IPC and POSIX message queues: memory of the kernel outside `/tmp`'s limits, and nothing here uses it;
- `sync`, `syncfs`: they write out what other tenants and the host have in memory;
- `mincore`, `readahead`: what of a file that all sandboxes share is in memory tells what others do;
- policies of memory and of scheduling, I/O priorities, port and descriptor tables of x86 (`iopl`, `modify_ldt`).

Sources: syscalls(2) and the pages of each call; the list that Docker and Podman ship, which is wider; and what Node,
the image's tools and both runc were seen to call.
"""

from sandpost.walls.seccomp.rules import U32, Checked, Group, any_of, below, calls, equal, masked

NEWEST = "set_mempolicy_home_node"
"""The newest call (Linux 5.17) that the table decides on, on every architecture. Newer ones get ENOSYS, as from a
kernel that has none of them, so that libraries take an older way. runc puts this test before the filter: whatever
number is higher than those of all names in it (runc, libcontainer/seccomp/patchbpf). libseccomp 2.5.4 knows none
that is newer, so a later library draws the same line."""

ABSENT = ("clone3",)
"""Calls that get ENOSYS, so that libc takes `clone`: their arguments lie in memory, where no filter can look."""

_CLONE_NEW = 0x7E02_0000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. `clone` looks at 32 bits; CLONE_NEWTIME is not
among them, its bit is part of the signal's number there."""
_FILE_TYPE, _FIFO = 0o170000, 0o010000
_MAP_HUGETLB = 0x40000
_MFD_HUGETLB = 0x4
_FADV_DONTNEED = 4
_IN_READ = 0x31
"""IN_ACCESS, IN_OPEN, IN_CLOSE_NOWRITE."""
_RWF_NOWAIT = 8
_MS_SYNC = 4
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_TYPE = 0xF
_STREAM, _DGRAM, _RAW = 1, 2, 3
_TCP, _UDP, _NETLINK_ROUTE = 6, 17, 0
_SOL_IP, _SOL_SOCKET, _SOL_TCP, _SOL_IPV6 = 0, 1, 6, 41

GROUPS = (
    Group(
        "reading and writing what is open",
        calls(
            "read write readv writev pread64 pwrite64 preadv pwritev pwritev2 lseek sendfile copy_file_range"
            " close close_range dup dup3 flock fallocate ftruncate"
        ),
    ),
    Group(
        "finding, opening and changing files, which the mounts and the user decide about",
        calls(
            "openat openat2 newfstatat fstat statx statfs fstatfs faccessat faccessat2 readlinkat getdents64 getcwd"
            " chdir fchdir mkdirat unlinkat renameat renameat2 linkat symlinkat truncate fchmod fchmodat fchown"
            " fchownat utimensat umask getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr"
            " fsetxattr removexattr lremovexattr fremovexattr inotify_init1 inotify_rm_watch"
        ),
    ),
    Group(
        "waiting: pipes, event loops, timers",
        calls(
            "pipe2 eventfd2 epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 ppoll pselect6 timerfd_create"
            " timerfd_settime timerfd_gettime signalfd4 nanosleep clock_nanosleep clock_gettime clock_getres"
            " gettimeofday getitimer setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete"
        ),
    ),
    Group(
        "memory of its own, which the control group counts; V8 makes code in it",
        calls("munmap mremap mprotect madvise brk mlock mlock2 munlock membarrier pkey_alloc pkey_free pkey_mprotect"),
    ),
    Group(
        "threads and what libc does for each",
        calls(
            "futex set_tid_address set_robust_list get_robust_list rseq gettid exit sched_yield sched_getaffinity"
            " sched_setaffinity sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min"
            " sched_rr_get_interval getcpu restart_syscall"
        ),
    ),
    Group(
        "programs and processes, all of them the sandbox's own",
        calls(
            "execve execveat exit_group wait4 waitid kill tkill tgkill pidfd_open pidfd_send_signal getpid getppid"
            " getpgid setpgid getsid setsid getpriority setpriority getrlimit setrlimit prlimit64 getrusage times"
        ),
    ),
    Group(
        "signals",
        calls(
            "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigpending rt_sigtimedwait rt_sigqueueinfo"
            " rt_tgsigqueueinfo sigaltstack"
        ),
    ),
    Group(
        "who one is; nothing that would change it",
        calls("getuid geteuid getgid getegid getresuid getresgid getgroups capget"),
    ),
    Group("chance, and what machine this is", calls("getrandom uname sysinfo")),
    Group(
        "sockets that are there: the network's walls stand outside",
        calls(
            "connect bind listen accept accept4 getsockname getpeername getsockopt sendto recvfrom sendmsg recvmsg"
            " sendmmsg recvmmsg shutdown"
        ),
    ),
)

LEGACY = (
    Group(
        "older names of calls above, which x86_64 still has and libc still uses",
        calls(
            "open creat stat lstat access readlink getdents mkdir rmdir unlink rename link symlink chmod chown lchown"
            " utime utimes futimesat inotify_init pipe dup2 eventfd epoll_create epoll_wait poll select signalfd pause"
            " alarm time fork vfork getpgrp"
        ),
    ),
    Group("a thread's own storage", calls("arch_prctl")),
)
"""Calls of x86_64 alone."""

CHECKED = (
    Checked(
        "clone",
        "threads and children, in the namespaces that are there",
        ((masked(0, _CLONE_NEW, 0),),),
    ),
    Checked(
        "mmap",
        "all memory but that of huge pages, which the host keeps for somebody and no memory limit counts",
        ((masked(3, _MAP_HUGETLB, 0),),),
    ),
    Checked("msync", "all but what waits for a disk (`PRETENDED`)", ((masked(2, _MS_SYNC, 0),),)),
    Checked("memfd_create", "the same as mmap", ((masked(1, _MFD_HUGETLB, 0),),)),
    Checked("mknodat", "named pipes; no devices", ((masked(2, _FILE_TYPE, _FIFO),),)),
    Checked(
        "fadvise64",
        "hints of how a file will be read; not those that push it out of the memory that all sandboxes share",
        ((below(3, _FADV_DONTNEED),),),
    ),
    Checked(
        "inotify_add_watch",
        "what is written, made, moved and removed. Not who opens and reads: the image and the modules are the same"
        " files in all sandboxes, and would tell what others run",
        ((masked(2, _IN_READ, 0),),),
    ),
    Checked(
        "fcntl",
        "all but F_NOTIFY (1026), the older way to the same, and what came since Linux 6.10 beside it",
        (
            (below(1, 1026),),
            *any_of(
                1,
                F_DUPFD_CLOEXEC=1030,
                F_SETPIPE_SZ=1031,
                F_GETPIPE_SZ=1032,
                F_ADD_SEALS=1033,
                F_GET_SEALS=1034,
                F_GET_RW_HINT=1035,
                F_SET_RW_HINT=1036,
                F_GET_FILE_RW_HINT=1037,
                F_SET_FILE_RW_HINT=1038,
            ),
        ),
    ),
    Checked(
        "preadv2",
        "reading; not with RWF_NOWAIT, which tells what of a file is in memory, as mincore does",
        ((masked(5, _RWF_NOWAIT, 0),),),
    ),
    Checked(
        "socket",
        "TCP, UDP and unix sockets, and netlink's view of the sandbox's own interfaces (os.networkInterfaces). No other"
        " family, type or protocol: naming one makes the kernel load its module (DCCP, SCTP and their holes)",
        (
            (equal(0, _AF_UNIX),),
            *(
                (equal(0, family), masked(1, _SOCK_TYPE, kind), equal(2, protocol))
                for family in (_AF_INET, _AF_INET6)
                for kind, protocols in ((_STREAM, (0, _TCP)), (_DGRAM, (0, _UDP)))
                for protocol in protocols
            ),
            (equal(0, _AF_NETLINK), masked(1, _SOCK_TYPE, _RAW), equal(2, _NETLINK_ROUTE)),
            (equal(0, _AF_NETLINK), masked(1, _SOCK_TYPE, _DGRAM), equal(2, _NETLINK_ROUTE)),
        ),
    ),
    Checked("socketpair", "pairs of unix sockets", ((equal(0, _AF_UNIX),),)),
    Checked(
        "setsockopt",
        "options of the sockets above. Not SO_ATTACH_FILTER (26) and later ones, by which programs enter the kernel;"
        " not TCP_REPAIR (19) and later ones, among them TCP_ULP, which loads kTLS; not IP_MSFILTER (41), anycast of"
        " IPv6 (27) and later ones, among them the tables of iptables (64)",
        (
            (equal(1, _SOL_SOCKET), below(2, 26)),
            (equal(1, _SOL_TCP), below(2, 19)),
            (equal(1, _SOL_IP), below(2, 41)),
            (equal(1, _SOL_IPV6), below(2, 27)),
        ),
    ),
    Checked(
        "ioctl",
        "what libc and libuv ask of a descriptor. Nothing of terminals but whether it is one (TIOCSTI types into"
        " them), nothing of file systems, devices and interfaces but a name's number",
        any_of(
            1,
            mask=U32,
            TCGETS=0x5401,
            TIOCGPGRP=0x540F,
            TIOCSPGRP=0x5410,
            TIOCGWINSZ=0x5413,
            FIONREAD=0x541B,
            FIONBIO=0x5421,
            FIONCLEX=0x5450,
            FIOCLEX=0x5451,
            SIOCGIFNAME=0x8910,
            SIOCGIFINDEX=0x8933,
        ),
    ),
    Checked(
        "prctl",
        "names, the init's place among orphans, what a parent's death sends, and looking at what cannot be changed",
        any_of(
            0,
            PR_SET_PDEATHSIG=1,
            PR_GET_PDEATHSIG=2,
            PR_GET_DUMPABLE=3,
            PR_SET_DUMPABLE=4,
            PR_SET_NAME=15,
            PR_GET_NAME=16,
            PR_CAPBSET_READ=23,
            PR_SET_CHILD_SUBREAPER=36,
            PR_GET_CHILD_SUBREAPER=37,
            PR_SET_NO_NEW_PRIVS=38,
            PR_GET_NO_NEW_PRIVS=39,
            PR_SET_VMA=0x53564D41,
        ),
    ),
    Checked(
        "personality",
        "asking for it and the ordinary one; none that takes chance out of addresses or maps page 0",
        any_of(0, mask=U32, PER_LINUX=0, ASK=U32),
    ),
)

PRETENDED = (
    Checked(
        "fsync", "all that a sandbox can write is in memory; for a file of the image the host's disk would flush", ((),)
    ),
    Checked("fdatasync", "the same", ((),)),
    Checked("sync_file_range", "the same", ((),)),
    Checked("msync", "the same for a file that is mapped", ((masked(2, _MS_SYNC, _MS_SYNC),),)),
)
"""Calls that are not made and get 0, in these ways: programs that save with care are right that it is saved."""

LEGACY_CHECKED = (Checked("mknod", "as mknodat", ((masked(1, _FILE_TYPE, _FIFO),),)),)

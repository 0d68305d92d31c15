"""The column of runsc beside the table of system calls: what gVisor's kernel answers to each, by itself.

Seen with every argument all ones (`engines.test_runsc`), as an unprivileged program. What is in neither set is made
by the sentry, which fails it or not as Linux would; none of it is a call of the host's kernel.
"""

from sandpost.walls.seccomp.rules import calls

REFUSED = frozenset(
    calls("""sched_setparam sched_rr_get_interval vhangup modify_ldt pivot_root _sysctl adjtimex chroot acct settimeofday mount
    umount2 swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module delete_module quotactl
    lookup_dcookie clock_settime kexec_load migrate_pages move_pages clock_adjtime kcmp finit_module
    kexec_file_load""")
)
"""EPERM."""
ABSENT = frozenset(
    calls("""syslog setfsuid setfsgid uselib ustat sysfs get_kernel_syms query_module nfsservctl getpmsg putpmsg afs_syscall
    tuxcall security set_thread_area io_cancel get_thread_area epoll_ctl_old epoll_wait_old remap_file_pages vserver
    mq_timedsend mq_timedreceive mq_notify mq_getsetattr keyctl vmsplice fanotify_init fanotify_mark userfaultfd
    pkey_mprotect pkey_alloc pkey_free io_pgetevents rseq io_uring_setup io_uring_enter io_uring_register fspick
    process_madvise mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self
    memfd_secret process_mrelease futex_waitv set_mempolicy_home_node""")
)
"""ENOSYS. So are calls without a name, those above `seccomp.table.NEWEST`, and all of the x32 and 32-bit tables."""

"""What of /proc a sandbox sees. Pure.

A `proc` file system of a sandbox's own shows its own processes; beside them stands what the kernel tells of the whole
machine (proc(5)). Of that a program sees what Node and libc read; all else is covered: by /dev/null where it is a
file, by an empty folder where it is a folder. An OCI runtime passes over what this kernel has not.

/proc/net is each process's own and cannot be covered; of the machine it tells some sums (sockstat, softnet_stat).
"""

KEPT = (
    "cpuinfo",  # os.cpus()
    "filesystems",  # libselinux, in every `ls` and `cp`, looks for its own
    "loadavg",  # os.loadavg()
    "meminfo",  # os.totalmem(), os.freemem(), and V8's choice of its heap
    "mounts",  # a link to self
    "net",  # a link to self
    "self",
    "stat",  # os.cpus()
    "sys",  # read-only; runc 1.5 itself looks for kernel/cap_last_cap in it when all else stands
    "thread-self",
    "uptime",  # os.uptime()
    "version",  # as uname(2)
)
"""Names in /proc that stay."""

READ_ONLY = ("/proc/sys",)
"""Paths that nobody can write to."""

_SETTINGS = ("sys/fs", "sys/kernel/core_pattern", "sys/kernel/random/boot_id")
"""Of the kernel's settings: counters of all that is open, who collects the host's crashes, and the number by which two
tenants would know that they share a host."""

_ACTIVITY = (
    "buddyinfo",
    "cgroups",
    "diskstats",
    "interrupts",
    "locks",
    "pagetypeinfo",
    "partitions",
    "pressure",
    "sched_debug",
    "schedstat",
    "slabinfo",
    "softirqs",
    "swaps",
    "timer_list",
    "timer_stats",
    "vmallocinfo",
    "vmstat",
    "zoneinfo",
    "allocinfo",
    "latency_stats",
    "fs",
    "mdstat",
)
"""What the host and other tenants do at the moment, and how many there are."""

_MACHINE = (
    "acpi",
    "asound",
    "bootconfig",
    "bus",
    "cmdline",
    "config.gz",
    "consoles",
    "cpu",
    "crypto",
    "device-tree",
    "devices",
    "dma",
    "driver",
    "dynamic_debug",
    "execdomains",
    "fb",
    "iomem",
    "ioports",
    "irq",
    "misc",
    "modules",
    "mtrr",
    "scsi",
    "tty",
    "xen",
)
"""How the host was built and booted."""

_KERNEL = (
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "sysrq-trigger",
    "sysvipc",
    "vmcore",
)
"""The kernel's own memory, names, keys and levers."""

MASKED = tuple(f"/proc/{name}" for name in (*_SETTINGS, *_ACTIVITY, *_MACHINE, *_KERNEL))
"""Paths that are covered."""

"""What the parts that stay root give up: capabilities that neither they nor what they start have a use for. Pure.

The supervisor starts runc, nft and the image's build, and changes users; the controller makes namespaces, mounts,
control groups, interfaces and rules, writes the id maps of sandboxes and kills them. That takes CHOWN, DAC_OVERRIDE,
FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, SETFCAP, NET_ADMIN, NET_BIND_SERVICE, SYS_ADMIN, SYS_CHROOT, SYS_PTRACE,
SYS_RESOURCE and MKNOD; with SYS_ADMIN they are all but root. The rest is left out because nothing of it is ever asked
for, above all what changes the kernel itself, the hardware or the clock.
"""

from collections.abc import Mapping

UNUSED: Mapping[int, str] = {
    9: "LINUX_IMMUTABLE: marks files that nobody may change",
    11: "NET_BROADCAST: unused by the kernel",
    15: "IPC_OWNER: System V memory of others",
    16: "SYS_MODULE: loads code into the kernel; what nft and ip need, the kernel loads itself",
    17: "SYS_RAWIO: ports and memory of the hardware",
    20: "SYS_PACCT: accounting of all processes",
    22: "SYS_BOOT: reboots, and loads another kernel",
    25: "SYS_TIME: sets the clock",
    26: "SYS_TTY_CONFIG: hangs terminals up",
    28: "LEASE: leases on files of others",
    30: "AUDIT_CONTROL: the audit's rules",
    32: "MAC_OVERRIDE: past Smack",
    33: "MAC_ADMIN: changes the policy of Smack and AppArmor",
    34: "SYSLOG: the kernel's log, and its addresses",
    35: "WAKE_ALARM: wakes the machine",
    36: "BLOCK_SUSPEND: keeps it awake",
    37: "AUDIT_READ: the audit's records",
    38: "PERFMON: looks into what runs; runc asks for SYS_ADMIN",
    40: "CHECKPOINT_RESTORE: gives processes pids of its choice",
}
"""Capabilities (CAP_*, capabilities(7)), and what each would be good for."""

"""The few calls that Python has no name for, by ctypes."""

import ctypes
import os

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNS = 0x00020000
_MS_RDONLY = 0x1
_MS_NOSUID = 0x2
_MS_NODEV = 0x4
_MS_NOEXEC = 0x8
_MS_REMOUNT = 0x20
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MNT_DETACH = 2
_FALLOC_FL_KEEP_SIZE = 0x1
_FALLOC_FL_PUNCH_HOLE = 0x2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def become_subreaper() -> None:
    """Adopt orphans among our descendants (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


def forbid_new_privileges() -> None:
    """Let no later exec give this process more than it has (PR_SET_NO_NEW_PRIVS)."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


def forbid_looking_inside() -> None:
    """Let no other process of this user trace this one or read its memory, and write no core (PR_SET_DUMPABLE).

    An exec takes it back. What is below /proc/<pid> belongs to root from now on.
    """
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")


def die_with_parent(number: int) -> None:
    """Get signal `number` when the parent ends (PR_SET_PDEATHSIG)."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "PR_SET_PDEATHSIG")


def own_mounts() -> None:
    """Give this process mounts of its own, from which nothing goes back."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "make mounts private")


def mount_tmpfs(target: str, size: int) -> None:
    """Mount an empty folder of at most `size` bytes, that everybody may pass through, over `target`."""
    options = b"mode=0755,size=%d" % size
    _check(
        _libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", _MS_NODEV | _MS_NOSUID, options), f"tmpfs over {target}"
    )


def unmount(target: str) -> None:
    """Take what is mounted at `target` out of sight; it goes when nobody holds anything of it any more."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")


def bind(source: str, target: str, *, writable: bool, devices: bool = False) -> None:
    """Show the tree `source` at `target` too: without set-user-id programs, to be read or else to be written.

    Nothing in a writable one can be run, and only one with `devices` has any.
    """
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND | _MS_REC, None), f"bind {target}")
    # Its own flags stay: in a container some of them may not be taken off. statvfs names these four as mount does.
    flags = os.statvfs(target).f_flag & (_MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    flags |= _MS_NOSUID | (0 if devices else _MS_NODEV) | (_MS_NOEXEC if writable else _MS_RDONLY)
    _restrict_mount(target, flags)


def enter_root(folder: str) -> None:
    """Make `folder`, a mount, the read-only root of this process's own mounts; nothing else is left of them."""
    _restrict_mount(folder, _MS_RDONLY | _MS_NOSUID | _MS_NODEV)
    os.chdir(folder)
    # The old root comes to lie over the new one, and is taken away (pivot_root(2), NOTES).
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", _MNT_DETACH), "umount of the former root")
    os.chdir("/")


def punch_hole(fd: int, begin: int, end: int) -> None:
    """Give back what the bytes from `begin` to before `end` of a file take; they read as zeros (fallocate(2))."""
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    _check(_libc.fallocate(fd, mode, begin, end - begin), "punch a hole")


def _restrict_mount(target: str, flags: int) -> None:
    _check(_libc.mount(None, os.fsencode(target), None, _MS_REMOUNT | _MS_BIND | flags, None), f"remount {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")

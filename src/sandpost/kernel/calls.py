"""The few calls that Python has no name for, by ctypes."""

import ctypes
import os

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNS = 0x00020000
_MS_NODEV_NOSUID = 0x2 | 0x4
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_PRIVATE = 0x40000
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def become_subreaper() -> None:
    """Adopt orphans among our descendants (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "PR_SET_CHILD_SUBREAPER")


def forbid_new_privileges() -> None:
    """Let no later exec give this process more than it has (PR_SET_NO_NEW_PRIVS)."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")


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
    _check(_libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", _MS_NODEV_NOSUID, options), f"tmpfs over {target}")


def unmount(target: str) -> None:
    """Take what is mounted at `target` out of sight; it goes when nobody holds anything of it any more."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")


def bind(source: str, target: str) -> None:
    """Show the tree `source` at `target` too."""
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND | _MS_REC, None), f"bind {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")

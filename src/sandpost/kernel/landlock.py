"""Landlock (landlock(7)): this process gives up files, ports and other processes that it does not name."""

import ctypes
import os
import struct
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""Numbers of the calls on every architecture."""
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (1 << bit for bit in range(6))
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << bit for bit in range(6, 13))
_REFER, _TRUNCATE, _IOCTL_DEV = (1 << bit for bit in range(13, 16))
_ALL_FILES = (1 << 13) - 1
_BIND_TCP, _CONNECT_TCP = 1, 2
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
"""Rights that make sense for a thing that is no folder."""
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _TRUNCATE | _MAKE_REG | _MAKE_DIR | _MAKE_SOCK | _REMOVE_FILE | _REMOVE_DIR

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Return the ABI that the kernel has: 0 none, 2 Linux 6.1, 4 ports, 6 signals and abstract sockets."""
    return max(0, _call(_CREATE_RULESET, None, 0, _VERSION))


def restrict(
    *, read: Iterable[str], write: Iterable[str], connect: Iterable[int] | None, bind: Iterable[int] | None
) -> int:
    """Give up everything else, in this thread and in those it starts from now on; return the ABI, 0 if there is none.

    `read` and `write` are folders and files, with what is below; what is not there is left out. No file can be run,
    no link, FIFO or device be made, and nothing be moved from one folder to another. `connect` and `bind` are TCP
    ports, None for any. What the ABI lacks is not given up. Needs `no_new_privs`, or CAP_SYS_ADMIN.
    """
    abi = version()
    if abi == 0:
        return 0
    files = _ALL_FILES | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0) | (_IOCTL_DEV if abi >= 5 else 0)
    ports = ((_CONNECT_TCP, connect), (_BIND_TCP, bind))
    net = sum(right for right, allowed in ports if allowed is not None) if abi >= 4 else 0
    scopes = _ABSTRACT_SOCKETS | _SIGNALS if abi >= 6 else 0
    known = struct.pack("=3Q", files, net, scopes)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    rules = _check(_call(_CREATE_RULESET, known, len(known), 0))
    try:
        for paths, rights in ((read, _READ), (write, _WRITE)):
            for path in paths:
                _allow_path(rules, path, rights & files)
        for right, allowed in ports:
            for port in (allowed or ()) if net & right else ():
                _check(_call(_ADD_RULE, rules, _NET_PORT, struct.pack("=2Q", right, port), 0))
        _check(_call(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)
    return abi


def _allow_path(rules: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        # What is not there, or not to be reached at all.
        return
    try:
        if not os.path.isdir(path):
            rights &= _OF_FILES
        _check(_call(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, fd), 0))
    finally:
        os.close(fd)


def _call(number: int, *arguments: int | bytes | None) -> int:
    result: int = _libc.syscall(number, *arguments)
    return result


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"landlock: {os.strerror(number)}")
    return result

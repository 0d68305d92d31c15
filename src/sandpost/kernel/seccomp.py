"""Puts a filter of system calls on this process (seccomp(2))."""

import ctypes
import os

_CALLS = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER = 1
_TSYNC = 1
_SPEC_ALLOW = 4

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def install(program: bytes) -> None:
    """Put `program`, packed `struct sock_filter`s, on all threads of this process, for good; `OSError` if it cannot be.

    Needs `no_new_privs`, or CAP_SYS_ADMIN.
    """
    wanted = _Program(len(program) // 8, program)
    # SPEC_ALLOW: before Linux 5.16 a filter alone switched off a speculation of the processor for the whole process,
    # which costs a proxy some per cent and is meant for processes that run code of others.
    result = _libc.syscall(_CALLS[os.uname().machine], _SET_MODE_FILTER, _TSYNC | _SPEC_ALLOW, ctypes.byref(wanted))
    if result != 0:
        # With TSYNC a positive result is a thread that could not follow.
        number = ctypes.get_errno() if result < 0 else 0
        raise OSError(number, f"seccomp: {os.strerror(number) if number else f'thread {result} does not follow'}")

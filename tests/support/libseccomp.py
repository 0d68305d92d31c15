"""libseccomp by ctypes: names of system calls, and the program that a rendered table becomes, for any architecture.

What runc does with an OCI `linux.seccomp` is done here in the same order, but for its test of numbers that are higher
than all in the filter, which it writes itself.
"""

import ctypes
import functools
import os
import struct
from collections.abc import Mapping
from typing import Any

TOKENS = {"SCMP_ARCH_X86_64": 0xC000003E, "SCMP_ARCH_AARCH64": 0xC00000B7}
"""Architectures as libseccomp and the kernel (audit.h) number them."""
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x00000000, 0x00050000
_COMPARES = {"SCMP_CMP_LT": 2, "SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}


class _Compare(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    found = ctypes.CDLL("libseccomp.so.2")
    found.seccomp_init.restype = ctypes.c_void_p
    found.seccomp_init.argtypes = [ctypes.c_uint32]
    found.seccomp_release.argtypes = [ctypes.c_void_p]
    found.seccomp_arch_native.restype = ctypes.c_uint32
    found.seccomp_arch_add.argtypes = found.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    found.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Compare),
    ]
    found.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    found.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    found.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    found.seccomp_syscall_resolve_num_arch.argtypes = [ctypes.c_uint32, ctypes.c_int]
    return found


@functools.cache
def number(architecture: str, name: str) -> int:
    """Return a call's number; below 0 if the architecture has none (or nobody knows the name)."""
    return int(_library().seccomp_syscall_resolve_name_arch(TOKENS[architecture], name.encode()))


@functools.cache
def name(architecture: str, number: int) -> str:
    """Return the name of a call; empty if it has none."""
    found = _library().seccomp_syscall_resolve_num_arch(TOKENS[architecture], number)
    return found.decode() if found else ""


class Program:
    """The BPF that a rendered table becomes; the caller asks it what a call would get."""

    def __init__(self, rendered: Mapping[str, Any]) -> None:
        (architecture,) = rendered["architectures"]
        self._token = TOKENS[architecture]
        self._code = _compile(rendered, architecture, self._token)

    def __len__(self) -> int:
        return len(self._code)

    def answer(self, number: int, arguments: tuple[int, ...], token: int | None = None) -> int:
        """Return the filter's value for a call (SECCOMP_RET_DATA in the lower half), as the kernel would run it."""
        seen = struct.pack("<iIQ6Q", _signed(number), token or self._token, 0, *arguments)
        accumulator = place = 0
        while True:
            code, jump, other, k = self._code[place]
            place += 1
            match code:
                case 0x20:  # ld [k]
                    (accumulator,) = struct.unpack_from("<I", seen, k)
                case 0x54:  # and
                    accumulator &= k
                case 0x05:  # ja
                    place += k
                case 0x06:  # ret
                    return k
                case 0x15:  # jeq
                    place += jump if accumulator == k else other
                case 0x25:  # jgt
                    place += jump if accumulator > k else other
                case 0x35:  # jge
                    place += jump if accumulator >= k else other
                case 0x45:  # jset
                    place += jump if accumulator & k else other
                case _:
                    raise AssertionError(f"unknown instruction {code:#x}")


def _signed(number: int) -> int:
    return number - (1 << 32) if number >= 1 << 31 else number


def _compile(rendered: Mapping[str, Any], architecture: str, token: int) -> list[tuple[int, int, int, int]]:
    library = _library()
    context = library.seccomp_init(_action(rendered["defaultAction"], rendered["defaultErrnoRet"]))
    try:
        native = library.seccomp_arch_native()
        if native != token:
            assert library.seccomp_arch_add(context, token) == 0
            assert library.seccomp_arch_remove(context, native) == 0
        for rule in rendered["syscalls"]:
            action = _action(rule["action"], rule.get("errnoRet", 1))
            if action == _action(rendered["defaultAction"], rendered["defaultErrnoRet"]):
                continue
            compares = [
                _Compare(one["index"], _COMPARES[one["op"]], one["value"], one.get("valueTwo", 0))
                for one in rule.get("args", [])
            ]
            for call in rule["names"]:
                # Numbers of the native table stand for the call; libseccomp translates them.
                known = int(library.seccomp_syscall_resolve_name(call.encode()))
                array = (_Compare * len(compares))(*compares)
                failed = library.seccomp_rule_add_array(context, action, known, len(compares), array)
                assert failed == 0, (architecture, call, os.strerror(-failed))
        fd = os.memfd_create("filter")
        try:
            assert library.seccomp_export_bpf(context, fd) == 0
            return list(struct.iter_unpack("<HBBI", os.pread(fd, 1 << 20, 0)))
        finally:
            os.close(fd)
    finally:
        library.seccomp_release(context)


def _action(name: str, number: int) -> int:
    return ALLOW if name == "SCMP_ACT_ALLOW" else ERRNO | number

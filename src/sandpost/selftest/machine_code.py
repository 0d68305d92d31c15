"""A program of a few hundred bytes that makes system calls past every library, as a tenant would bring one along. Pure.

Sources: Intel SDM volume 2 (encodings), System V ABI AMD64 appendix A (registers of a call), elf(5).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

MACHINE = "x86_64"
"""Where it runs."""
_HEADERS = 64 + 56
_MOVE = (b"\x48\xb8", b"\x48\xbf", b"\x48\xbe", b"\x48\xba", b"\x49\xba", b"\x49\xb8", b"\x49\xb9")
"""`movabs` of eight bytes into rax, rdi, rsi, rdx, r10, r8, r9: the call's number and its arguments."""
_SYSCALL = b"\x0f\x05"
_INT_80 = b"\xcd\x80"
"""The way into the kernel's table of 32-bit programs, which takes the number from eax."""
_STORE = b"\x48\xa3"
"""`movabs` of rax to an address."""
BASE = 0x400000
"""Where the program lies in its memory."""
_WRITE, _EXIT_GROUP = 1, 231
_EACH = len(_MOVE) * 10 + len(_SYSCALL) + 10


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its number and up to six arguments; a text is put into the program, and the argument is where."""

    number: int
    arguments: tuple[int | bytes, ...] = ()
    old: bool = False
    """Made through the table of 32-bit programs, without arguments."""


def program(calls: Sequence[Call]) -> bytes:
    """Return an ELF file that makes `calls` in order and writes what each returned, eight bytes each, to its output."""
    code_size = _EACH * (len(calls) + 2)
    results = BASE + _HEADERS + code_size
    texts = results + 8 * len(calls)
    data = bytearray()
    code = bytearray()
    for index, call in enumerate(calls):
        values = [call.number]
        for argument in call.arguments:
            if isinstance(argument, bytes):
                values.append(texts + len(data))
                data += argument + b"\0"
            else:
                values.append(argument)
        code += _call(values, _INT_80 if call.old else _SYSCALL) + _STORE + struct.pack("<Q", results + 8 * index)
    code += _call([_WRITE, 1, results, 8 * len(calls)]) + _call([_EXIT_GROUP, 0])
    body = bytes(code).ljust(code_size, b"\x90") + bytes(8 * len(calls)) + bytes(data)
    return _header(len(body)) + body


def results(output: bytes) -> list[int]:
    """Return what the calls returned: a value, or an error's number below zero."""
    return [value for (value,) in struct.iter_unpack("<q", output)]


def _call(values: Sequence[int], enter: bytes = _SYSCALL) -> bytes:
    padded = [*values, *[0] * (len(_MOVE) - len(values))]
    moves = b"".join(move + struct.pack("<Q", value & (1 << 64) - 1) for move, value in zip(_MOVE, padded, strict=True))
    return moves + enter


def _header(size: int) -> bytes:
    whole = _HEADERS + size
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    return (
        ident
        + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        + struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, whole, whole, 4096)
    )

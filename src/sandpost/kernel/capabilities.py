"""Capabilities of this thread (capabilities(7)): given up for good, never taken."""

import ctypes
import os
import struct
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)

_VERSION_3 = 0x2008_0522
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_CAP_AMBIENT, _CLEAR_ALL = 47, 4
_SETPCAP = 8
_ALL = (1 << 64) - 1


def give_up_all() -> None:
    """Leave no capability in any set of this thread, nor for what it runs; `OSError` if the kernel refuses.

    The bounding set needs CAP_SETPCAP: without it, it stays, and means nothing once there is `no_new_privs`.
    """
    close_bounding_set()
    _check(_libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0))
    _set(0, 0, 0)


def give_up(numbers: Iterable[int]) -> None:
    """Give up these capabilities (CAP_*) in all sets, for this thread and for what it runs; see `give_up_all`."""
    gone = sum(1 << number for number in numbers)
    close_bounding_set(gone)
    _set(*(held & ~gone for held in _held()))


def close_bounding_set(gone: int = _ALL) -> None:
    """Let nothing that this thread runs get the capabilities of the mask `gone`; what it holds itself stays."""
    if not _held()[0] >> _SETPCAP & 1:
        return
    number = 0
    # The kernel says where its capabilities end.
    while (present := _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0)) >= 0:
        if present and gone >> number & 1:
            _check(_libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0))
        number += 1


def _held() -> tuple[int, int, int]:
    """Return the effective, permitted and inheritable set."""
    data = ctypes.create_string_buffer(24)
    _check(_libc.capget(struct.pack("=Ii", _VERSION_3, 0), data))
    low = struct.unpack("=6I", data.raw)
    return low[0] | low[3] << 32, low[1] | low[4] << 32, low[2] | low[5] << 32


def _set(effective: int, permitted: int, inheritable: int) -> None:
    sets = (effective, permitted, inheritable)
    halves = [one >> shift & 0xFFFF_FFFF for shift in (0, 32) for one in sets]
    _check(_libc.capset(struct.pack("=Ii", _VERSION_3, 0), struct.pack("=6I", *halves)))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capabilities: {os.strerror(number)}")

"""Calls back when files and folders change, by inotify(7), which the standard library does not have."""

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

MODIFIED = 0x2
ARRIVED = 0x80 | 0x100
"""Something was moved or made in a folder."""
ENDED = 0x400 | 0x800
"""What is watched was itself removed or moved."""
_IN_Q_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_ENDS = ENDED | _IN_IGNORED | _IN_Q_OVERFLOW
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_EVENT = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(eq=False, slots=True)
class _Calls:
    on_change: Callable[[], None]
    on_end: Callable[[], None]


class Watcher:
    """Watches for one event loop with one inotify instance: of these a user has 128, of watches thousands."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._fd = _check(_libc.inotify_init1(_FLAGS), "inotify")
        self._calls: dict[int, list[_Calls]] = {}
        loop.add_reader(self._fd, self._read)

    def watch(
        self,
        path: str,
        on_change: Callable[[], None],
        *,
        events: int = MODIFIED,
        on_end: Callable[[], None] | None = None,
    ) -> Callable[[], None]:
        """Call `on_change` whenever one of `events` came to the file or folder at `path`, or to anything in the folder.

        `on_end`: called instead when the watch may have ended with what it watched. Returns an undo, which may be
        called twice. Whoever watches the same path asks for the same events.
        """
        # A file that is watched already keeps its number.
        number = _check(_libc.inotify_add_watch(self._fd, os.fsencode(path), events), path)
        calls = _Calls(on_change, on_end or on_change)
        self._calls.setdefault(number, []).append(calls)

        def undo() -> None:
            left = self._calls.get(number, [])
            if calls in left:
                left.remove(calls)
                if not left:
                    del self._calls[number]
                    # Fails if the file is gone, and the watch with it.
                    _libc.inotify_rm_watch(self._fd, number)

        return undo

    def close(self) -> None:
        """End all watches: from another thread than the loop's as soon as that comes to it. Idempotent."""
        if self.loop.is_closed() or _running_loop() is self.loop:
            self._close()
        else:
            # Else the descriptor would go while the loop reads it.
            self.loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        if self._fd >= 0:
            if not self.loop.is_closed():
                self.loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._calls.clear()

    def _read(self) -> None:
        changed: dict[int, bool] = {}
        with contextlib.suppress(BlockingIOError):
            while self._fd >= 0:
                data = os.read(self._fd, 65536)
                at = 0
                while at < len(data):
                    number, mask, _, length = _EVENT.unpack_from(data, at)
                    at += _EVENT.size + length
                    # What overflowed is not known: all are looked at.
                    for one in tuple(self._calls) if mask & _IN_Q_OVERFLOW else (number,):
                        changed[one] = changed.get(one, False) or bool(mask & _ENDS)
        for number, ended in changed.items():
            for calls in list(self._calls.get(number, [])):
                (calls.on_end if ended else calls.on_change)()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    with contextlib.suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return int(result)

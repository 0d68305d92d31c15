"""Calls back when files change, by inotify(7), which the standard library does not have."""

import asyncio
import contextlib
import ctypes
import os
import struct
from collections.abc import Callable

_IN_MODIFY = 0x2
_IN_Q_OVERFLOW = 0x4000
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_EVENT = struct.Struct("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


class Watcher:
    """Watches files for one event loop with one inotify instance: of these a user has 128, of watches thousands."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._fd = _check(_libc.inotify_init1(_FLAGS), "inotify")
        self._calls: dict[int, list[Callable[[], None]]] = {}
        loop.add_reader(self._fd, self._read)

    def watch(self, path: str, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call `on_change` whenever the file at `path` has changed; return an undo, which may be called twice."""
        # A file that is watched already keeps its number.
        number = _check(_libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_MODIFY), path)
        self._calls.setdefault(number, []).append(on_change)

        def undo() -> None:
            calls = self._calls.get(number, [])
            if on_change in calls:
                calls.remove(on_change)
                if not calls:
                    del self._calls[number]
                    # Fails if the file is gone, and the watch with it.
                    _libc.inotify_rm_watch(self._fd, number)

        return undo

    def close(self) -> None:
        """End all watches. Idempotent."""
        if self._fd >= 0:
            if not self.loop.is_closed():
                self.loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self._calls.clear()

    def _read(self) -> None:
        changed: set[int] = set()
        with contextlib.suppress(BlockingIOError):
            while self._fd >= 0:
                data = os.read(self._fd, 65536)
                at = 0
                while at < len(data):
                    number, mask, _, length = _EVENT.unpack_from(data, at)
                    at += _EVENT.size + length
                    # What overflowed is not known: all are looked at.
                    changed.update(self._calls if mask & _IN_Q_OVERFLOW else (number,))
        for number in changed:
            for call in list(self._calls.get(number, [])):
                call()


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return int(result)

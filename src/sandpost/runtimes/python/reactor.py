"""The loop that everything but the threads of `def` programs runs on.

It begins as a few lines over epoll, which are there at once, and goes over to asyncio's loop when the first program
needs that: importing asyncio costs as much as three boots of all the rest. Descriptors, timers and what waits to be
called move along, so whoever holds a connection notices nothing.
"""

from __future__ import annotations

import select

# `collections` around it would cost a tenth of the boot.
from _collections import deque  # type: ignore[import-not-found]
from posix import EFD_CLOEXEC, EFD_NONBLOCK, eventfd, eventfd_read, eventfd_write
from time import monotonic

from .scope import NOBODY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from typing import Any, NoReturn

_IN = select.EPOLLIN
_OUT = select.EPOLLOUT


class Reactor:
    """All of it is for the loop's own thread, but for `post`."""

    def __init__(self) -> None:
        self.aio: AbstractEventLoop | None = None
        """asyncio's loop, once there is one."""
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], object]] = {}
        self._writers: dict[int, Callable[[], object]] = {}
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._timers: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = 0
        self._posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._woken = False
        self.on_error: Callable[[BaseException], object] = bool
        """Gets what the runtime itself has failed with."""
        self._wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        self.add_reader(self._wake, self._take_posted)

    def post(self, call: Callable[..., object], *args: Any) -> None:
        """Have `call` called on the loop. From any thread."""
        self._posted.append((call, args))
        if not self._woken:
            self._woken = True
            eventfd_write(self._wake, 1)

    def _take_posted(self) -> None:
        try:
            eventfd_read(self._wake)
        except BlockingIOError:
            pass
        self._woken = False
        posted = self._posted
        for _ in range(len(posted)):
            call, args = posted.popleft()
            try:
                call(*args)
            except Exception as error:
                # The others that wait are other calls'.
                self.on_error(error)

    def add_reader(self, fd: int, call: Callable[[], object]) -> None:
        """Call whenever there is something to read, until it is removed."""
        if self.aio is not None:
            # asyncio runs it in a copy of the context that it was added in.
            NOBODY.copy().run(self.aio.add_reader, fd, call)
            return
        self._readers[fd] = call
        self._register(fd)

    def remove_reader(self, fd: int) -> None:
        """Stop."""
        if self.aio is not None:
            self.aio.remove_reader(fd)
        elif self._readers.pop(fd, None) is not None:
            self._register(fd)

    def add_writer(self, fd: int, call: Callable[[], object]) -> None:
        """Call whenever there is room to write, until it is removed."""
        if self.aio is not None:
            NOBODY.copy().run(self.aio.add_writer, fd, call)
            return
        self._writers[fd] = call
        self._register(fd)

    def remove_writer(self, fd: int) -> None:
        """Stop."""
        if self.aio is not None:
            self.aio.remove_writer(fd)
        elif self._writers.pop(fd, None) is not None:
            self._register(fd)

    def call_soon(self, call: Callable[..., object], *args: Any) -> None:
        """Call in the next turn."""
        if self.aio is not None:
            self.aio.call_soon(call, *args, context=NOBODY.copy())
        else:
            self._ready.append((call, args))

    def call_later(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        """Call after `delay` seconds."""
        if self.aio is not None:
            self.aio.call_later(delay, call, *args, context=NOBODY.copy())
            return
        self._numbers += 1
        self._timers.append((monotonic() + delay, self._numbers, call, args))
        self._timers.sort(reverse=True)

    def loop(self) -> AbstractEventLoop:
        """Return asyncio's loop; the first time all goes over to it."""
        if self.aio is None:
            from .aio import new_loop

            # The import may have run turns of other threads, and none of this loop.
            self.aio = aio = new_loop(self)
            for fd, call in self._readers.items():
                self.add_reader(fd, call)
            for fd, call in self._writers.items():
                self.add_writer(fd, call)
            for call, args in self._ready:
                self.call_soon(call, *args)
            now = monotonic()
            for at, _, call, args in self._timers:
                self.call_later(max(0.0, at - now), call, *args)
            self._epoll.close()
            del self._readers, self._writers, self._timers
            self._ready.clear()
            return aio
        return self.aio

    def run(self, on_exit: Callable[[SystemExit], object]) -> NoReturn:
        """Turn for ever. `on_exit` gets a `SystemExit` that came up through asyncio."""
        while True:
            try:
                if self.aio is None:
                    self._turn()
                else:
                    # A program may have stopped it.
                    self.aio.run_forever()
            except SystemExit as error:
                on_exit(error)
            except BaseException as error:
                self.on_error(error)

    def _turn(self) -> None:
        timeout = 0.0
        if not self._ready:
            timeout = max(0.0, self._timers[-1][0] - monotonic()) if self._timers else -1.0
        for fd, events in self._epoll.poll(timeout):
            if self.aio is not None:
                # asyncio's loop has them all, and asks again.
                return
            if events & ~_OUT and (reader := self._readers.get(fd)) is not None:
                reader()
            if events & ~_IN and self.aio is None and (writer := self._writers.get(fd)) is not None:
                writer()
        if self.aio is not None:
            return
        if self._timers:
            now = monotonic()
            while self.aio is None and self._timers and self._timers[-1][0] <= now:
                _, _, call, args = self._timers.pop()
                call(*args)
        ready = self._ready
        for _ in range(len(ready)):
            if not ready:
                return
            call, args = ready.popleft()
            call(*args)

    def _register(self, fd: int) -> None:
        events = (_IN if fd in self._readers else 0) | (_OUT if fd in self._writers else 0)
        if not events:
            self._epoll.unregister(fd)
            return
        try:
            self._epoll.modify(fd, events)
        except FileNotFoundError:
            self._epoll.register(fd, events)


REACTOR = Reactor()

"""Connections to one place (a sandbox, the api) and the pool of them. Pools never share a connection.

Whoever uses a connection gets all its events. A connection that nobody uses and that says something has broken the
exchange: it ends. It also ends when the other side closes it, so that a pooled connection is alive when it is taken.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

from sandpost.proxy.figures import Counts
from sandpost.proxy.reading import Reading

CONNECT_TIMEOUT = 5.0
MAX_IDLE = 64
IDLE_FOR = 60.0
"""Seconds after which a pooled connection that nobody used is closed."""

Connect = Callable[[Callable[[], asyncio.BaseProtocol]], Awaitable[Any]]


class User(Protocol):
    """Who uses a connection. `up_ready` or `up_failed` comes once for each `Pool.take` that returned None."""

    def up_ready(self, up: "Upstream", /) -> None:
        """The connection is there."""

    def up_failed(self, error: str, /) -> None:
        """No connection could be made."""

    def up_data(self, data: bytes, /) -> None:
        """Bytes came."""

    def up_lost(self, clean: bool, /) -> None:
        """The connection has ended; `clean`: the other side closed it in order."""

    def up_writable(self, writable: bool, /) -> None:
        """The connection takes more, or has enough for now."""


class Upstream(Reading):
    """One connection. `user` None: it is idle in its pool."""

    __slots__ = (
        "closed", "head_code", "head_date", "head_in", "head_length", "head_out", "head_plan", "idle_since", "pool",
        "transport", "user",
    )  # fmt: skip

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.user: User | None = None
        self.closed = False
        self.idle_since = 0.0
        # The last answer's head and what was made of it: programs repeat theirs.
        self.head_in = b""
        self.head_out = b""
        self.head_length = 0
        self.head_plan: object = None
        self.head_date: object = None
        self.head_code = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(0)
        self.pool.connections.add(self)

    def data_received(self, data: bytes) -> None:
        user = self.user
        if user is None:
            self.end()
        else:
            user.up_data(data)

    def eof_received(self) -> None:
        if self.user is None:
            self.closed = True

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self.pool.lost(self)
        user, self.user = self.user, None
        if user is not None:
            user.up_lost(error is None)

    def pause_writing(self) -> None:
        if self.user is not None:
            self.user.up_writable(False)

    def resume_writing(self) -> None:
        if self.user is not None:
            self.user.up_writable(True)

    def end(self) -> None:
        """Close at once; its user hears nothing more."""
        self.user = None
        self.closed = True
        if self.transport is not None:
            self.transport.abort()


class Pool:
    """The connections to one place."""

    def __init__(self, connect: Connect, counts: Counts) -> None:
        self._connect = connect
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._idle: list[Upstream] = []
        self._opening: dict[asyncio.Task[None], User | None] = {}
        self.connections: set[Upstream] = set()
        self._closed = False
        self._on_empty: Callable[[], None] | None = None

    def take(self, user: User) -> Upstream | None:
        """Return a connection for `user`, or None and tell it later."""
        idle = self._idle
        while idle:
            up = idle.pop()
            if not up.closed:
                up.user = user
                return up
        self.open(user)
        return None

    def open(self, user: User) -> None:
        """Make a connection for `user` and tell it."""
        task = self._loop.create_task(self._open())
        self._opening[task] = user
        task.add_done_callback(self._opened)

    def forget(self, user: User) -> None:
        """`user` no longer waits for a connection; one that is being made goes to the pool."""
        for task, waiting in self._opening.items():
            if waiting is user:
                self._opening[task] = None
                return

    def give(self, up: Upstream) -> None:
        """Take back a connection that can serve another exchange."""
        up.user = None
        if up.closed or self._closed or len(self._idle) >= MAX_IDLE:
            up.end()
            return
        up.idle_since = self._loop.time()
        self._idle.append(up)

    def lost(self, up: Upstream) -> None:
        """A connection has ended."""
        self.connections.discard(up)
        # One that ended while idle is found closed when it is taken; here only few are looked through.
        if up.user is None and up in self._idle:
            self._idle.remove(up)
        self._check_empty()

    def trim(self, now: float) -> None:
        """Close what has been idle for long."""
        while self._idle and now - self._idle[0].idle_since > IDLE_FOR:
            self._idle.pop(0).end()

    def close(self, on_empty: Callable[[], None] | None = None) -> None:
        """End all connections; `on_empty` runs when none is left."""
        self._closed = True
        self._on_empty = on_empty
        for task in list(self._opening):
            task.cancel()
        for up in list(self.connections):
            user = up.user
            up.end()
            if user is not None:
                user.up_lost(False)
        self._idle.clear()
        self._loop.call_soon(self._check_empty)

    def _check_empty(self) -> None:
        if self._closed and self._on_empty is not None and not self.connections and not self._opening:
            on_empty, self._on_empty = self._on_empty, None
            on_empty()

    async def _open(self) -> None:
        protocol = Upstream(self)
        task = asyncio.current_task()
        assert task is not None
        error = ""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._connect(lambda: protocol)
        except (OSError, TimeoutError) as failure:
            error = str(failure) or "no connection in time"
        user = self._opening.pop(task, None)
        if error:
            if user is not None:
                user.up_failed(error)
            return
        self._counts.upstream_opened += 1
        if user is None:
            self.give(protocol)
            return
        protocol.user = user
        if protocol.closed:
            user.up_failed("closed at once")
        else:
            user.up_ready(protocol)

    def _opened(self, task: "asyncio.Task[None]") -> None:
        user = self._opening.pop(task, None)
        if user is not None:
            user.up_failed("the pool was closed")
        self._check_empty()
        if not task.cancelled() and (failure := task.exception()) is not None:
            raise failure

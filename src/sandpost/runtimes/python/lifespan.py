"""The life of an ASGI application: it is told of its start before its first call, and of its end when it goes."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from posix import getpid, kill

from . import failures, frames
from .asgi import VERSION
from .reactor import REACTOR
from .scope import NOBODY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .calls import Call
    from .programs import Program

STOP_WAIT = 2.0
"""Seconds that applications have for their end when the sandbox goes."""
_living: set[asyncio.Task[None]] = set()


class StartError(RuntimeError):
    """The application says that it cannot start."""


class Lifespan:
    """`state` is what it keeps for its requests; None for an application that knows no lifespan."""

    def __init__(self, program: Program, call: Call) -> None:
        self._program = program
        self._call = call
        self.state: dict[str, Any] | None = {}
        self._asked = 0
        self._started = False
        self._stopping: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self, ready: Callable[[Program], object], failed: Callable[[Call, BaseException], object]) -> None:
        """Tell the application; one of the two is called once."""
        loop = REACTOR.loop()
        self._ready, self._failed = ready, failed
        self._stopping = asyncio.Event()
        # Its start is the first call's affair, as the top level is.
        context = self._call.context.run(copy_context)
        self._task = loop.create_task(self._live(), context=context)
        _living.add(self._task)
        self._task.add_done_callback(_living.discard, context=NOBODY.copy())
        _catch_sigterm(loop)

    def stop(self) -> None:
        """Tell it of its end; it goes on by itself."""
        if self._stopping is not None:
            self._stopping.set()

    async def _live(self) -> None:
        scope = {"type": "lifespan", "asgi": VERSION.copy(), "state": self.state}
        try:
            await self._program.main(scope, self._receive, self._send)
        except BaseException as error:
            if self._started:
                frames.write(50, "", failures.carried(failures.ASYNC_EXCEPTION, "", error, self._program.source).record)
            elif isinstance(error, StartError):
                self._failed(self._call, error)
            else:
                # It knows of no lifespan, and says so in this way.
                self.state = None
                self._begin()
        else:
            self._begin()

    def _begin(self) -> None:
        if not self._started:
            self._started = True
            self._program.lifespan = self
            self._ready(self._program)

    async def _receive(self) -> dict[str, Any]:
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        assert self._stopping is not None
        await self._stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete":
            self._begin()
        elif kind == "lifespan.startup.failed":
            raise StartError(str(message.get("message", "")) or "the application could not start")
        elif kind == "lifespan.shutdown.failed":
            frames.write(50, "", f"lifespan.shutdown failed: {message.get('message', '')}")


_caught = False


def _catch_sigterm(loop: asyncio.AbstractEventLoop) -> None:
    """From the first application on SIGTERM lets them end, before it ends the process as it always does."""
    global _caught  # noqa: PLW0603
    if not _caught:
        _caught = True
        loop.add_signal_handler(15, lambda: NOBODY.copy().run(loop.create_task, _end(loop)))


async def _end(loop: asyncio.AbstractEventLoop) -> None:
    from .server import PROGRAMS

    loop.remove_signal_handler(15)
    for lifespan in PROGRAMS.lifespans():
        lifespan.stop()
    if _living:
        await asyncio.wait(list(_living), timeout=STOP_WAIT)
    frames.FRAMES.drain()
    kill(getpid(), 15)

"""asyncio as programs get it: a loop of its own making, and whose a failure is that nobody caught."""

from __future__ import annotations

import asyncio
import gc

from . import frames
from .scope import CURRENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from contextvars import Context
    from typing import Any

    from .calls import Call
    from .reactor import Reactor


def new_loop(_reactor: Reactor) -> asyncio.AbstractEventLoop:
    """Make the loop that everything goes over to."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(_make_task)
    loop.set_exception_handler(_on_failure)
    asyncio.set_event_loop(loop)
    # What is there now stays: collections need not look at it again and again.
    gc.collect()
    gc.freeze()
    return loop


class _Task(asyncio.Task):  # type: ignore[type-arg]
    """A task that knows its call: asyncio tells of a failure that nobody fetched in no call's context."""

    sandpost_call: Call | None = None


def _make_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    context: Context | None = None,
) -> asyncio.Task[Any]:
    task = _Task(coroutine, loop=loop, context=context)
    task.sandpost_call = CURRENT.get() if context is None else context.get(CURRENT)
    return task


def _on_failure(_loop: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
    from .calls import charge

    error = told.get("exception")
    handle, task = told.get("handle"), told.get("task", told.get("future"))
    if handle is not None:
        call = handle._context.get(CURRENT)
    elif isinstance(task, _Task):
        call = task.sandpost_call
    else:
        call = CURRENT.get()
    if isinstance(error, BaseException):
        charge(call, error)
    else:
        frames.write(40, "" if call is None else call.frame_id, str(told.get("message", "")))

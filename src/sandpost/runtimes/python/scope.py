"""Which call the running code belongs to, across tasks, callbacks and threads."""

from __future__ import annotations

from contextvars import ContextVar, copy_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextvars import Context

    from .calls import Call

CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)
"""The call, finished or not; None if the running code is nobody's."""
NOBODY = copy_context()
"""The context of what the runtime does by itself."""


def context_of(call: Call) -> Context:
    """Return a context of the call's own."""
    context = NOBODY.copy()
    context.run(CURRENT.set, call)
    return context

"""Renews parts one after another under load: no call fails and no sandbox ends."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sandpost.logs.setup import get_logger
from sandpost.model.errors import HostUnfit
from sandpost.model.messages import Retire
from sandpost.supervisor.family import Child

if TYPE_CHECKING:
    from sandpost.supervisor.supervisor import Role, Supervisor

log = get_logger()

GRACE = 5.0
"""What a part gets beyond its time before it is killed."""
READY_WAIT = 30.0
_BESIDE = frozenset({"proxy", "api", "egress"})
"""Parts whose successor runs beside them for a moment: theirs are sockets that can be shared or renamed over."""
_QUICK = 10.0
"""Time for parts that have nothing to drain."""


async def renew(supervisor: "Supervisor", roles: Iterable["Role"]) -> None:
    """Renew `roles`. `HostUnfit` if a successor does not come up; what it was to succeed goes on, then."""
    order = {"proxy": 0, "egress": 1, "api": 2, "collector": 3, "controller": 4}
    retired: list[Child] = []
    drain = supervisor.host.drain_timeout
    for role in sorted(roles, key=lambda role: (order[role[0]], role[1])):
        if role[0] in _BESIDE:
            # One that ended and waits for its restart has nothing to retire.
            await _up(role, supervisor.start(role, successor=role in supervisor.current))
            former = supervisor.succeed(role) if role in supervisor.successors else None
            if former is not None:
                retire(former, drain)
                retired.append(former)
        elif (former := supervisor.current.get(role)) is not None:
            former.retiring = True
            retire(former, _QUICK)
            # Its end starts the next one (`Supervisor`).
            await ended([former], _QUICK + GRACE)
            await _up(role, supervisor.current.get(role))
    # Calls on connections of the former workers go on meanwhile.
    await ended(retired, drain + GRACE)


def retire(child: Child, timeout: float) -> None:
    """Ask a part to finish and end."""
    if not child.send(Retire(timeout=timeout)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGTERM)


async def ended(children: Iterable[Child], within: float, urgent: asyncio.Event | None = None) -> None:
    """Wait until all have ended; who has not `within` so many seconds, or when it gets `urgent`, is killed."""
    children = list(children)
    waits = [asyncio.create_task(child.gone.wait()) for child in children]
    hurry: asyncio.Future[Any] | None = asyncio.create_task(urgent.wait()) if urgent is not None else None
    try:
        gone: asyncio.Future[Any] = asyncio.gather(*waits)
        await asyncio.wait({gone, hurry} if hurry else {gone}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        for child in children:
            if not child.gone.is_set():
                log.warning("part did not end in time: killed", part=child.role[0], index=child.role[1], pid_=child.pid)
                child.kill()
        await asyncio.wait([gone], timeout=GRACE)
    finally:
        for task in (*waits, *([hurry] if hurry else [])):
            task.cancel()


async def _up(role: "Role", child: Child | None) -> None:
    if child is None:
        raise HostUnfit(f"{role[0]} {role[1]} cannot be started: its log lines say why")
    ready = asyncio.create_task(child.ready.wait())
    gone = asyncio.create_task(child.gone.wait())
    try:
        await asyncio.wait([ready, gone], timeout=READY_WAIT, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ready.cancel()
        gone.cancel()
    if child.gone.is_set() or not child.ready.is_set():
        child.kill()
        raise HostUnfit(f"the new {role[0]} {role[1]} did not get ready: its log lines say why; the old one goes on")

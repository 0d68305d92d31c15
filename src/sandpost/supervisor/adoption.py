"""Takes over the living children of a supervisor that was killed, and their listening sockets."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sandpost.logs.setup import get_logger
from sandpost.supervisor import renewal
from sandpost.supervisor.family import Child, Known

if TYPE_CHECKING:
    from sandpost.supervisor.supervisor import Supervisor

log = get_logger()

WAIT = 5.0
"""They have so long to say hello; their connectors try again every second."""


async def adopt(supervisor: "Supervisor", previous: Sequence[Known]) -> None:
    """Make those of `previous` that live the supervisor's. Who stays silent is ended, and started anew afterwards."""
    adopted: list[Child] = []
    # A renewal may have been cut short: of two in one role the younger is the one that stays.
    for known in sorted(previous, key=lambda known: known.start_time):
        child = supervisor.family.adopt(known)
        if child is None:
            continue
        if child.role in supervisor.roles:
            if (former := supervisor.current.get(child.role)) is not None:
                former.retiring = True
            supervisor.current[child.role] = child
        else:
            child.retiring = True
        adopted.append(child)
    supervisor.family.adopted()
    deadline = asyncio.get_running_loop().time() + WAIT
    while not all(_heard(supervisor, child) for child in adopted):
        supervisor.changed.clear()
        try:
            async with asyncio.timeout_at(deadline):
                await supervisor.changed.wait()
        except TimeoutError:
            break
    for child in adopted:
        if child.channel is None and not child.gone.is_set():
            log.warning("a part of the earlier supervisor is silent: ended", part=child.role[0], pid_=child.pid)
            child.kill()
            await renewal.ended([child], 1.0)
            continue
        if child.role[0] == "proxy" and not child.retiring and child.role[1] not in supervisor.sockets:
            # It accepts no more, as after a stop that was cut short, or hangs: another one is started in its place.
            log.warning("a worker of the earlier supervisor has no listener: replaced", pid_=child.pid)
            child.retiring = True
            del supervisor.current[child.role]
        if child.retiring:
            renewal.retire(child, supervisor.host.drain_timeout)
            supervisor.later(supervisor.host.drain_timeout + renewal.GRACE, child.kill)


def _heard(supervisor: "Supervisor", child: Child) -> bool:
    if child.gone.is_set():
        return True
    part, index = child.role
    if child.channel is None or child.retiring:
        return child.channel is not None
    if part == "egress":
        return bool(supervisor.platform)
    return part != "proxy" or index in supervisor.sockets

"""The end of an installation: parts in order, every sandbox, and who reads what sandboxes say."""

import os
from typing import TYPE_CHECKING

from sandpost.logs.setup import get_logger
from sandpost.model.errors import HostUnfit
from sandpost.model.messages import Part
from sandpost.supervisor import renewal, spawn

if TYPE_CHECKING:
    from sandpost.supervisor.supervisor import Supervisor

log = get_logger()

SERVING: tuple[tuple[Part, ...], ...] = (("proxy",), ("api", "egress"), ("controller",))
READING: tuple[tuple[Part, ...], ...] = (("collector",),)
"""It ends last: what programs say at their own end is still read."""
_QUICK = 10.0
_PURGE = 120.0


async def end_children(supervisor: "Supervisor", order: tuple[tuple[Part, ...], ...]) -> None:
    """End these parts: workers may drain, then what they lean on."""
    # Ours first: a worker's own copy is then the last one, and new clients are refused once it closes it.
    for sock in (*supervisor.sockets.values(), *supervisor.platform):
        sock.close()
    for parts in order:
        children = [child for child in supervisor.family.children.values() if child.role[0] in parts]
        timeout = supervisor.host.drain_timeout if parts == ("proxy",) else _QUICK
        for child in children:
            if supervisor.urgent.is_set():
                child.kill()
            else:
                renewal.retire(child, timeout)
        await renewal.ended(children, timeout + renewal.GRACE, supervisor.urgent)


async def purge(supervisor: "Supervisor") -> None:
    """Remove every sandbox and what they shared, by a controller of its own; `HostUnfit` if it fails."""
    plan = supervisor.plan
    how = ["--purge", "--at-once"] if supervisor.urgent.is_set() else ["--purge"]
    birth = spawn.Birth(
        command=[*plan.command("controller", 0, plan.host_file), *how], uid=0, gid=0, output=plan.output
    )
    try:
        child = supervisor.family.start("controller", 0, plan.release, birth)
    except OSError as error:
        raise HostUnfit(f"sandboxes could not be removed ({error}): start again and stop") from None
    await renewal.ended([child], _PURGE)
    if child.status is None or os.waitstatus_to_exitcode(child.status) != 0:
        raise HostUnfit("sandboxes could not all be removed, the log lines above say why: start again and stop")

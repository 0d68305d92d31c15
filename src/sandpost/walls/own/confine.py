"""A part confines itself: once it has imported what it runs, before it reads what anybody wrote."""

import os
import resource

from sandpost.kernel import calls as kernel_calls
from sandpost.kernel import capabilities, landlock, seccomp
from sandpost.kernel.program import program_folders
from sandpost.logs.setup import get_logger
from sandpost.model.errors import HostUnfit
from sandpost.model.host import Host
from sandpost.model.messages import Part
from sandpost.walls.own import calls, needs
from sandpost.walls.own.filter import pack, render
from sandpost.walls.own.needs import Needs
from sandpost.walls.own.numbers import numbers
from sandpost.walls.seccomp import table

log = get_logger()


def confine(part: Part, host: Host) -> None:
    """Give up for good what `part` does not need. One thread, its user as it shall be, no event loop yet.

    Raises `HostUnfit` if the kernel does not give a wall; Landlock alone may be missing, which is said.
    """
    wanted = needs.of(part, host, program_folders())
    try:
        _limit(wanted)
        kernel_calls.forbid_new_privileges()
        kernel_calls.forbid_looking_inside()
        capabilities.give_up_all()
        abi = landlock.restrict(read=wanted.read, write=wanted.write, connect=wanted.connect, bind=wanted.bind)
        seccomp.install(program(wanted, os.uname().machine, os.getpid()))
    except (OSError, KeyError) as error:
        raise HostUnfit(
            f"{part} cannot confine itself ({error}): it needs a kernel with CONFIG_SECCOMP_FILTER, as Debian's, and "
            "in a container a profile that lets it set filters; `sandpost doctor` looks"
        ) from error
    if abi == 0:
        log.warning("the kernel has no Landlock: users, modes and mounts alone keep this part from files")


def program(wanted: Needs, machine: str, pid: int) -> bytes:
    """Return the filter of system calls for the process `pid` on a `machine`, packed. Pure."""
    steps = render(
        machine,
        numbers(machine),
        groups=calls.groups(machine, serves=wanted.serves, splices=wanted.splices, watches=wanted.watches),
        checked=calls.checked(wanted.sockets, pid),
        absent=table.ABSENT,
        newest=table.NEWEST,
    )
    return pack(steps)


def _limit(wanted: Needs) -> None:
    limits = (
        # A memory image would hold keys and bodies of all tenants.
        (resource.RLIMIT_CORE, 0),
        # Counted over all processes of the user: who is taken over cannot fill the machine's table of tasks.
        (resource.RLIMIT_NPROC, wanted.tasks),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    )
    for number, most in limits:
        hard = resource.getrlimit(number)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(number, (bound, bound))

"""Which OCI runtimes can make sandboxes, and what each needs for itself beside what a tenant may use. Pure."""

from dataclasses import dataclass

import msgspec

from sandpost.model.limits import EngineName, Limits, MiB

ENGINES: tuple[EngineName, ...] = ("runc", "runsc")
HOW_TO_GET: dict[EngineName, str] = {
    "runc": "`apt-get install runc`, or name one with `oci.runtime`",
    "runsc": "`scripts/install --gvisor`, or name one with `oci.runsc`",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a runtime itself takes of a sandbox's group, measured (ARCHITECTURE.md), and what an idle one costs."""

    memory: int = 0
    """Bytes beside what the program can use."""
    pids: int = 0
    """Threads beside the program's own."""
    pids_each: int = 1
    """Threads on the host for each process or thread of the program, at most."""
    idle: int
    """Bytes that an idle sandbox takes of the machine; `bench` measures it."""
    fixed_pids: bool = False
    """The program's own processes are counted inside, by a limit that is set as it starts and not changed later."""


NEEDS: dict[EngineName, Needs] = {
    "runc": Needs(idle=12 * MiB),
    # Seen: 16 MiB less for the program in a group of the same limit, whatever the limit; 39 threads idle, two more
    # for each process, one for each thread. Out of threads the sentry ends, so that there must always be some left.
    "runsc": Needs(memory=24 * MiB, pids=64, pids_each=3, idle=36 * MiB, fixed_pids=True),
}


def outside(limits: Limits, engine: EngineName, sandboxes: int = 1) -> Limits:
    """Return what the group on the host is limited to, so that programs may use what `limits` promise.

    `sandboxes` stand in the group, one of each of a tenant's runtimes. Where processes are counted inside, each of them
    may have `limits.pids`.
    """
    needs = NEEDS[engine]
    pids = limits.pids * needs.pids_each * (sandboxes if needs.fixed_pids else 1)
    return msgspec.structs.replace(
        limits, memory=limits.memory + needs.memory * sandboxes, pids=pids + needs.pids * sandboxes
    )

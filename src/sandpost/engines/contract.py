"""What an engine must do. Drivers are siblings of this module; one contract suite runs against all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sandpost.model.host import Host
from sandpost.model.limits import EngineName, Limits
from sandpost.walls.pressure import Pressure


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """Everything that decides what a sandbox is. Descriptors stay the caller's."""

    sandbox_id: str
    group_id: str
    """Id of the tenant group; a pooled sandbox gets a fresh one, a further sandbox of a tenant the tenant's."""
    slot: int
    """Fixes addresses, uid range and interface; not in use by any other sandbox."""
    runtime: str
    engine: EngineName
    """The OCI runtime that makes it, and no other."""
    limits: Limits
    """What the program may use; what the OCI runtime itself needs is added to it."""
    stdout: int
    stderr: int
    frames: int
    """Write ends of the three FIFOs; `frames` becomes descriptor 3 inside."""
    ready: int | None = None
    """Write end of a pipe, descriptor 4 inside. An honest runtime writes a byte when it listens; only a hint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A sandbox whose first process runs; nothing is said of the runtime's readiness yet."""

    pid: int
    """Host pid of the sandbox's init."""
    start_time: int
    """Field 22 of /proc/<pid>/stat: with `pid` it names the process for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """What a sandbox has used, read from outside; what its OCI runtime needs for itself is in it."""

    memory: int
    cpu_seconds: float
    pids: int
    oom_kills: int
    """Processes of the sandbox that the kernel killed for want of memory."""
    parent_full: bool = False
    """The memory that was wanting was that of all sandboxes together, not the tenant's."""
    peak_memory: int = 0
    """Most memory seen in use, bytes."""
    pids_refused: int = 0
    """Processes and threads that `limits.pids` did not let be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A sandbox that the engine finds on the host. `pid` is None if nothing runs in it any more."""

    sandbox_id: str
    group_id: str
    pid: int | None
    """Host pid of its first process."""
    slot: int | None = None
    """What its bundle says; None if that is gone, and with it whatever the slot fixes."""


class Engine(Protocol):
    """Makes and removes sandboxes of one installation.

    Calls for different sandboxes may run at once; calls for one sandbox are made one after another. Every
    failure is an `EngineError` that says what failed and what to do; after a failed or cancelled `start`
    the caller calls `remove`.
    """

    async def open(self) -> None:
        """Make what all sandboxes share (parent group, firewall table). Idempotent; called before all else."""

    async def start(self, spec: SandboxSpec) -> Started:
        """Make the sandbox with all its walls and start its runtime.

        Walls stand before the first instruction inside. Returns when the process runs, within 10 s.
        """

    def set_limits(self, group_id: str, limits: Limits, engine: EngineName) -> None:
        """Write a tenant's limits to its group; also for a group whose sandboxes run, which `engine` made.

        `MemoryInUse` where the kernel refuses a limit below what is in use (cgroup v1); the others are set then.
        Where it does not it ends the largest sandbox of the group.
        `model.engines.Needs.fixed_pids`: those keep the limit of processes that they were started with.
        """

    def take_up(self, host: Host) -> None:
        """Take up which OCI runtimes there are now; the rest of `host` is what it was."""

    def limit_parent(self, memory: int) -> None:
        """Bound the memory of all sandboxes together, bytes."""

    async def kill(self, sandbox_id: str, group_id: str) -> None:
        """Kill every process of the sandbox at once. Idempotent."""

    async def remove(self, sandbox_id: str, group_id: str, slot: int) -> None:
        """Remove everything the sandbox had: processes, mounts, namespaces, interface, groups, files.

        Idempotent, also for a sandbox that was never or only half made. Removes the tenant group with its
        last sandbox. Returns when the slot may be dealt again.
        """

    def consumption(self, sandbox_id: str, group_id: str) -> Consumption | None:
        """Read what it has used; None if it is gone."""

    def pressure(self, sandbox_id: str, group_id: str, pid: int, limits: Limits) -> Pressure | None:
        """Look which limits that end nothing are met now. `pid` is its first process.

        None if it is gone, or is of an engine that shows nothing of it outside.
        """

    def memory(self) -> tuple[int, int]:
        """Return bytes used by all sandboxes together, and their bound."""

    def watch_memory(self, sandbox_id: str, group_id: str, on_out_of_memory: Callable[[], None]) -> Callable[[], None]:
        """Call `on_out_of_memory` (event loop) when the kernel killed in the sandbox for want of memory.

        Called once; `consumption` then tells whose memory was wanting. What is left of the sandbox may still run:
        the caller kills it. Returns an undo.
        """

    def watch_parent(self, threshold: int, on_full: Callable[[], None]) -> Callable[[], None]:
        """Call `on_full` (event loop) whenever all sandboxes come to use `threshold` bytes; returns an undo."""

    def find(self) -> list[Found]:
        """List what is on the host, from its groups and the runtime's state, whoever made it."""

    async def close(self, *, purge: bool) -> None:
        """Let go; with `purge` remove what `open` made (only when no sandbox is left)."""

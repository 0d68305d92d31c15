"""What a driver of control groups does, whatever the kernel's version of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sandpost.model.limits import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one sandbox's group has used; sizes bytes."""

    memory: int
    peak_memory: int
    cpu_seconds: float
    pids: int
    oom_kills: int
    parent_full: bool
    pids_refused: int = 0
    """Processes and threads that the tenant's limit did not let be."""


class Groups(Protocol):
    """The groups of one installation.

    Failures are `EngineError`, of `open` `HostUnfit`. `create`, `kill` and `remove` block for milliseconds and
    may run in any thread; the rest is quick and runs in the event loop.
    """

    def open(self) -> None:
        """Make the parent group with its controllers; remove tenant groups without a sandbox. Idempotent."""

    def create(self, group_id: str, sandbox_id: str, limits: Limits) -> None:
        """Make the tenant's group with its limits in force, if it is not there, and the sandbox's below it."""

    def count(self, group_id: str) -> int:
        """Return how many sandboxes have a group below a tenant's; 0 if that is not there."""

    def path(self, group_id: str, sandbox_id: str) -> str:
        """Return the sandbox's group as the OCI runtime names it (`linux.cgroupsPath`)."""

    def entries(self, group_id: str, sandbox_id: str) -> list[str]:
        """Return the files that a process writes 0 to, to enter the sandbox's group by itself."""

    def set_limits(self, group_id: str, limits: Limits) -> None:
        """Write limits to a tenant's group, also under running sandboxes.

        Where the processors do not suffice for all, tenants share them in proportion to their limits of CPU.
        A memory limit below what is in use, and cannot be reclaimed, is refused with `MemoryInUse` on v1, the
        others being set; on v2 the kernel enforces it by killing.
        """

    def limit_parent(self, memory: int) -> None:
        """Bound the memory of all sandboxes together."""

    def parent_memory(self) -> tuple[int, int]:
        """Return what all sandboxes use together, and their bound."""

    def usage(self, group_id: str, sandbox_id: str) -> Usage | None:
        """Read what a sandbox has used; None if its group is gone."""

    def processes(self, group_id: str, sandbox_id: str) -> list[int]:
        """List the sandbox's processes; none if the group is gone."""

    def kill(self, group_id: str, sandbox_id: str) -> None:
        """Kill every process of the sandbox and wait until none is left, at most 5 s. Idempotent."""

    def remove(self, group_id: str, sandbox_id: str) -> None:
        """Remove the sandbox's empty groups, and the tenant's with the last sandbox. Idempotent."""

    def find(self) -> list[tuple[str, str]]:
        """List group id and sandbox id of every sandbox's group."""

    def watch(self, group_id: str, sandbox_id: str, on_kill: Callable[[], None]) -> Callable[[], None]:
        """Call `on_kill` once, in the event loop, when the kernel killed in the sandbox for want of memory."""

    def watch_parent(self, threshold: int, on_full: Callable[[], None]) -> Callable[[], None]:
        """Call `on_full` in the event loop whenever all sandboxes together come to use `threshold` bytes."""

    def close(self, *, purge: bool) -> None:
        """Let go; with `purge` remove the parent group, which must have no sandbox left."""

"""Control groups of version 2, one tree for all controllers (cgroup-v2.rst)."""

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Callable

from sandpost.kernel import inotify
from sandpost.model.errors import EngineError, HostUnfit
from sandpost.model.host import Host
from sandpost.model.limits import Limits
from sandpost.walls.cgroups import files
from sandpost.walls.cgroups.contract import Usage
from sandpost.walls.cgroups.mounts import Mounts

PERIOD = 100_000
"""Microseconds over which a CPU quota counts."""
_WEIGHT = 100
"""A core's weight; the kernel takes 1 to 10,000."""
_NEEDED = ("memory", "cpu", "pids")
_ENABLE = " ".join(f"+{name}" for name in _NEEDED)
_POLL = 0.1
"""Seconds between looks at the parent's memory: version 2 has no event for a threshold that does not throttle."""


class GroupsV2:
    """The groups of one installation in the tree of version 2."""

    def __init__(self, host: Host, mounts: Mounts) -> None:
        self._base = mounts.unified or "/sys/fs/cgroup"
        self._name = host.cgroup_parent
        self._parent = os.path.join(self._base, self._name)
        self._watcher: inotify.Watcher | None = None

    def open(self) -> None:
        try:
            offered = files.read(os.path.join(self._base, "cgroup.controllers")).split()
        except FileNotFoundError:
            raise HostUnfit(
                f"no tree of control groups v2 is mounted at {self._base}: `sandpost doctor` says what this machine has"
            ) from None
        missing = [name for name in _NEEDED if name not in offered]
        if missing:
            raise HostUnfit(
                f"{self._base} does not offer the controllers {', '.join(missing)}: "
                "enable them above it (systemd: `Delegate=yes`; a container: its own cgroup namespace)"
            )
        try:
            files.write(os.path.join(self._base, "cgroup.subtree_control"), _ENABLE)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise HostUnfit(f"cannot enable controllers in {self._base}: {error.strerror}") from error
            raise HostUnfit(
                f"processes stand in {self._base} itself, so that it can hold no limited groups: "
                f"start sandpost from a group below it"
            ) from error
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._parent)
        files.write(os.path.join(self._parent, "cgroup.subtree_control"), _ENABLE)
        for name in files.subgroups(self._parent, "t-"):
            files.remove_if_empty(os.path.join(self._parent, name))

    def create(self, group_id: str, sandbox_id: str, limits: Limits) -> None:
        tenant, sandbox = self._tenant(group_id), self._sandbox(group_id, sandbox_id)
        try:
            files.make(sandbox)
            self.set_limits(group_id, limits)
            files.write(os.path.join(tenant, "cgroup.subtree_control"), _ENABLE)
            # One process killed for memory ends the whole sandbox.
            files.write(os.path.join(sandbox, "memory.oom.group"), 1)
        except OSError as error:
            raise EngineError(f"cannot make the group {sandbox}: {error}") from error

    def count(self, group_id: str) -> int:
        return len(files.subgroups(self._tenant(group_id), "s-"))

    def path(self, group_id: str, sandbox_id: str) -> str:
        return f"/{self._name}/t-{group_id}/s-{sandbox_id}"

    def entries(self, group_id: str, sandbox_id: str) -> list[str]:
        return [os.path.join(self._sandbox(group_id, sandbox_id), "cgroup.procs")]

    def set_limits(self, group_id: str, limits: Limits) -> None:
        tenant = self._tenant(group_id)
        quota = max(1000, round(limits.cpu * PERIOD))
        try:
            self._limit_memory(tenant, limits.memory)
            files.write(os.path.join(tenant, "cpu.max"), f"{quota} {PERIOD}")
            files.write(os.path.join(tenant, "cpu.weight"), min(10_000, max(1, round(limits.cpu * _WEIGHT))))
            files.write(os.path.join(tenant, "pids.max"), limits.pids)
        except OSError as error:
            raise EngineError(f"cannot set limits of the group {tenant}: {error}") from error

    def limit_parent(self, memory: int) -> None:
        try:
            self._limit_memory(self._parent, memory)
        except OSError as error:
            raise EngineError(f"cannot limit the memory of {self._parent} to {memory}: {error}") from error

    def parent_memory(self) -> tuple[int, int]:
        return (
            files.number(os.path.join(self._parent, "memory.current")),
            files.number(os.path.join(self._parent, "memory.max")),
        )

    def usage(self, group_id: str, sandbox_id: str) -> Usage | None:
        sandbox = self._sandbox(group_id, sandbox_id)
        try:
            kills = files.fields(os.path.join(sandbox, "memory.events")).get("oom_kill", 0)
            memory = files.number(os.path.join(sandbox, "memory.current"))
            peak = memory
            # Linux 5.19 and later.
            with contextlib.suppress(FileNotFoundError):
                peak = files.number(os.path.join(sandbox, "memory.peak"))
            own = files.fields(os.path.join(self._tenant(group_id), "memory.events.local")).get("oom", 0)
            return Usage(
                memory=memory,
                peak_memory=peak,
                cpu_seconds=files.fields(os.path.join(sandbox, "cpu.stat"))["usage_usec"] / 1e6,
                pids=files.number(os.path.join(sandbox, "pids.current")),
                oom_kills=kills,
                pids_refused=self._pids_refused(group_id, sandbox),
                parent_full=bool(kills) and not own,
            )
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return None
            raise EngineError(f"cannot read the group {sandbox}: {error}") from error

    def _pids_refused(self, group_id: str, sandbox: str) -> int:
        """Older kernels count where the fork was, since Linux 6.11 they count where the limit is."""
        groups = sandbox, self._tenant(group_id)
        return max(files.fields(os.path.join(group, "pids.events")).get("max", 0) for group in groups)

    def processes(self, group_id: str, sandbox_id: str) -> list[int]:
        return files.processes(self._sandbox(group_id, sandbox_id))

    def kill(self, group_id: str, sandbox_id: str) -> None:
        sandbox = self._sandbox(group_id, sandbox_id)
        try:
            # Linux 5.14 and later: all at once, forks too.
            files.write(os.path.join(sandbox, "cgroup.kill"), 1)
        except FileNotFoundError:
            files.kill_each(sandbox, self.path(group_id, sandbox_id))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise EngineError(f"cannot kill the group {sandbox}: {error}") from error
        deadline = time.monotonic() + files.KILL_DEADLINE
        pause = 0.001
        while left := files.processes(sandbox):
            if time.monotonic() > deadline:
                raise EngineError(f"processes {left} survive in {sandbox}: see /proc/<pid>/stack")
            time.sleep(pause)
            pause = min(pause * 2, 0.05)

    def remove(self, group_id: str, sandbox_id: str) -> None:
        files.remove(self._sandbox(group_id, sandbox_id), time.monotonic() + files.KILL_DEADLINE)
        files.remove_if_empty(self._tenant(group_id))

    def find(self) -> list[tuple[str, str]]:
        return [
            (tenant.removeprefix("t-"), sandbox.removeprefix("s-"))
            for tenant in files.subgroups(self._parent, "t-")
            for sandbox in files.subgroups(os.path.join(self._parent, tenant), "s-")
        ]

    def watch(self, group_id: str, sandbox_id: str, on_kill: Callable[[], None]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        events = os.path.join(self._sandbox(group_id, sandbox_id), "memory.events")
        done = False

        def undo() -> None:
            nonlocal done
            if not done:
                done = True
                first.cancel()
                end()

        def check() -> None:
            kills = 0
            with contextlib.suppress(OSError):
                kills = files.fields(events).get("oom_kill", 0)
            if kills and not done:
                undo()
                on_kill()

        try:
            end = self._watcher_of(loop).watch(events, check)
        except OSError as error:
            raise EngineError(f"cannot watch the memory of sandbox {sandbox_id}: {error}") from error
        # What was killed before we began to watch.
        first = loop.call_later(0, check)
        return undo

    def watch_parent(self, threshold: int, on_full: Callable[[], None]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        above = False
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal above, timer
            timer = loop.call_later(_POLL, look)
            before, above = above, self.parent_memory()[0] >= threshold
            if above and not before:
                on_full()

        def undo() -> None:
            if timer is not None:
                timer.cancel()

        timer = loop.call_later(0, look)
        return undo

    def close(self, *, purge: bool) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        if purge:
            for name in files.subgroups(self._parent, "t-"):
                files.remove_if_empty(os.path.join(self._parent, name))
            files.remove(self._parent, time.monotonic() + files.KILL_DEADLINE)

    def _limit_memory(self, group: str, memory: int) -> None:
        files.write(os.path.join(group, "memory.max"), memory)
        # A kernel that does not count swap has no such file; preflight has seen that the machine then has none.
        with contextlib.suppress(FileNotFoundError):
            files.write(os.path.join(group, "memory.swap.max"), 0)

    def _watcher_of(self, loop: asyncio.AbstractEventLoop) -> inotify.Watcher:
        if self._watcher is not None and self._watcher.loop is not loop:
            self._watcher.close()
            self._watcher = None
        if self._watcher is None:
            self._watcher = inotify.Watcher(loop)
        return self._watcher

    def _tenant(self, group_id: str) -> str:
        return os.path.join(self._parent, f"t-{group_id}")

    def _sandbox(self, group_id: str, sandbox_id: str) -> str:
        return os.path.join(self._tenant(group_id), f"s-{sandbox_id}")

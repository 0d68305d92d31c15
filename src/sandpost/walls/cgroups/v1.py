"""Control groups of version 1, one hierarchy a controller (cgroup-v1/memory.rst, cgroups(7)).

The OCI runtime makes a sandbox's group in every hierarchy of the machine, so every hierarchy is cleaned.
Version 1 does not end a group whose memory is wanting: the kernel kills one process, we are told, and the
caller kills the rest.
"""

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Callable

from sandpost.model.errors import EngineError, HostUnfit, MemoryInUse
from sandpost.model.host import Host
from sandpost.model.limits import Limits
from sandpost.walls.cgroups import files
from sandpost.walls.cgroups.contract import Usage
from sandpost.walls.cgroups.mounts import Mounts

PERIOD = 100_000
"""Microseconds over which a CPU quota counts."""
_WEIGHT = 1024
"""A core's share; the kernel takes 2 to 262,144."""
_NEEDED = ("memory", "cpu", "cpuacct", "pids")
_NO_LIMIT = -1
_CHECKS = (0.0, 0.002, 0.01, 0.05, 0.25, 1.0)
"""The kernel tells before it kills: seconds after which its count of kills is read."""
_ONE_CHARGE = 256 * 1024
"""Bytes that a limit may be missed by when the kernel kills for it: no larger allocation ends in a kill."""
_SOCKETS_OF_ALL = 32
"""Of the machine's memory all sandboxes' sockets have this part for their buffers. From twice that on the kernel's TCP,
which is everybody's, gets sparing with it, if nobody set it otherwise (tcp(7), tcp_mem)."""
_SAME_EVENT = 0.05
"""Seconds within which what the parent and a sandbox are told is one event: the first sandbox takes the parent's."""


class GroupsV1:
    """The groups of one installation in hierarchies of version 1."""

    def __init__(self, host: Host, mounts: Mounts) -> None:
        self._parent = host.cgroup_parent
        self._mounts = mounts
        # The v2 tree of a hybrid machine has no controllers that we use, but the runtime may make groups in it.
        self._roots = [
            os.path.join(point, self._parent)
            for point in (*mounts.hierarchies, *([mounts.unified] if mounts.unified else []))
        ]
        self._parent_events: int | None = None
        self._parent_full_at = float("-inf")
        self._parent_full: dict[str, bool] = {}

    def open(self) -> None:
        missing = [name for name in _NEEDED if name not in self._mounts.controllers]
        if missing:
            raise HostUnfit(
                f"no control group hierarchy is mounted for {', '.join(missing)}: "
                "boot with systemd.unified_cgroup_hierarchy=1"
            )
        for root in self._roots:
            with contextlib.suppress(FileExistsError):
                os.mkdir(root)
            for name in files.subgroups(root, "t-"):
                files.remove_if_empty(os.path.join(root, name))
        with contextlib.suppress(FileNotFoundError):
            if files.number(self._above("memory.use_hierarchy")) == 0:
                files.write(self._above("memory.use_hierarchy"), 1)
        try:
            self._limit_sockets("", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _SOCKETS_OF_ALL)
        except OSError as error:
            # Sandboxes that run may have more just now, by an earlier limit: that stays.
            if error.errno != errno.EBUSY:
                raise EngineError(f"cannot limit sockets of {self._parent}: {error}") from error
        if self._parent_events is None:
            self._parent_events = _event(self._above("memory.oom_control"), "")

    def create(self, group_id: str, sandbox_id: str, limits: Limits) -> None:
        for root in self._roots:
            files.make(os.path.join(root, f"t-{group_id}", f"s-{sandbox_id}"))
        # Sockets are counted for their own group, and so for those above it, once that one has a limit, though none.
        self._limit_sockets(f"t-{group_id}/s-{sandbox_id}", _NO_LIMIT)
        self.set_limits(group_id, limits)

    def count(self, group_id: str) -> int:
        return len(files.subgroups(self._file("memory", f"t-{group_id}", ""), "s-"))

    def path(self, group_id: str, sandbox_id: str) -> str:
        return f"/{self._parent}/t-{group_id}/s-{sandbox_id}"

    def entries(self, group_id: str, sandbox_id: str) -> list[str]:
        group = f"t-{group_id}/s-{sandbox_id}"
        # Controllers can share a hierarchy.
        return list(dict.fromkeys(self._file(controller, group, "cgroup.procs") for controller in _NEEDED))

    def set_limits(self, group_id: str, limits: Limits) -> None:
        group = f"t-{group_id}"
        refused: OSError | None = None
        try:
            quota = max(1000, round(limits.cpu * PERIOD))
            files.write(self._file("cpu", group, "cpu.cfs_period_us"), PERIOD)
            files.write(self._file("cpu", group, "cpu.cfs_quota_us"), quota)
            files.write(self._file("cpu", group, "cpu.shares"), max(2, round(limits.cpu * _WEIGHT)))
            files.write(self._file("pids", group, "pids.max"), limits.pids)
            # Last, since these can be refused.
            for limit in (self._limit_sockets, self._limit_memory):
                try:
                    limit(group, limits.memory)
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    refused = error
        except OSError as error:
            raise EngineError(f"cannot set limits of the group {group}: {error}") from error
        if refused is not None:
            raise MemoryInUse(
                f"the group uses more memory than its new limit of {limits.memory} bytes: end its sandbox first"
            ) from refused

    def limit_parent(self, memory: int) -> None:
        try:
            self._limit_memory("", memory)
        except OSError as error:
            raise EngineError(f"cannot limit the memory of {self._parent} to {memory}: {error}") from error

    def parent_memory(self) -> tuple[int, int]:
        return files.number(self._above("memory.usage_in_bytes")), files.number(self._above("memory.limit_in_bytes"))

    def usage(self, group_id: str, sandbox_id: str) -> Usage | None:
        group = f"t-{group_id}/s-{sandbox_id}"
        try:
            kills = files.fields(self._file("memory", group, "memory.oom_control")).get("oom_kill", 0)
            return Usage(
                memory=files.number(self._file("memory", group, "memory.usage_in_bytes")),
                peak_memory=files.number(self._file("memory", group, "memory.max_usage_in_bytes")),
                cpu_seconds=files.number(self._file("cpuacct", group, "cpuacct.usage")) / 1e9,
                pids=files.number(self._file("pids", group, "pids.current")),
                oom_kills=kills,
                pids_refused=files.fields(self._file("pids", group, "pids.events")).get("max", 0),
                parent_full=bool(kills) and self._was_parent_full(group_id, sandbox_id),
            )
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return None
            raise EngineError(f"cannot read the group {group}: {error}") from error

    def processes(self, group_id: str, sandbox_id: str) -> list[int]:
        return files.processes(self._file("pids", f"t-{group_id}/s-{sandbox_id}", ""))

    def kill(self, group_id: str, sandbox_id: str) -> None:
        # A process that was on its way in when we were killed may be in some hierarchies only.
        for root in self._roots:
            files.kill_each(os.path.join(root, f"t-{group_id}", f"s-{sandbox_id}"), self.path(group_id, sandbox_id))

    def remove(self, group_id: str, sandbox_id: str) -> None:
        deadline = time.monotonic() + files.KILL_DEADLINE
        for root in self._roots:
            files.remove(os.path.join(root, f"t-{group_id}", f"s-{sandbox_id}"), deadline)
            files.remove_if_empty(os.path.join(root, f"t-{group_id}"))
        self._parent_full.pop(sandbox_id, None)

    def find(self) -> list[tuple[str, str]]:
        found = set()
        for root in self._roots:
            for tenant in files.subgroups(root, "t-"):
                for sandbox in files.subgroups(os.path.join(root, tenant), "s-"):
                    found.add((tenant.removeprefix("t-"), sandbox.removeprefix("s-")))
        return sorted(found)

    def watch(self, group_id: str, sandbox_id: str, on_kill: Callable[[], None]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        control = self._file("memory", f"t-{group_id}/s-{sandbox_id}", "memory.oom_control")
        try:
            event = _event(control, "")
        except OSError as error:
            raise EngineError(f"cannot watch the memory of sandbox {sandbox_id}: {error}") from error
        timers: list[asyncio.TimerHandle] = []
        done = False
        starved: bool | None = None

        def undo() -> None:
            nonlocal done
            if not done:
                done = True
                for timer in timers:
                    timer.cancel()
                loop.remove_reader(event)
                os.close(event)

        def check() -> None:
            kills = 0
            with contextlib.suppress(OSError):
                kills = files.fields(control).get("oom_kill", 0)
            if kills and not done:
                if starved is not None:
                    self._parent_full[sandbox_id] = starved
                undo()
                on_kill()

        def told() -> None:
            nonlocal starved
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(event)
            starved = self._is_parent_full()
            for timer in timers:
                timer.cancel()
            timers[:] = [loop.call_later(delay, check) for delay in _CHECKS]

        loop.add_reader(event, told)
        # What was killed before we began to watch.
        timers.append(loop.call_later(0, check))
        return undo

    def watch_parent(self, threshold: int, on_full: Callable[[], None]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        usage = self._above("memory.usage_in_bytes")
        event = _event(usage, str(threshold))

        def told() -> None:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(event)
            # Told when the threshold is crossed in either direction.
            if files.number(usage) >= threshold:
                on_full()

        def undo() -> None:
            loop.remove_reader(event)
            os.close(event)

        loop.add_reader(event, told)
        return undo

    def close(self, *, purge: bool) -> None:
        if self._parent_events is not None:
            os.close(self._parent_events)
            self._parent_events = None
        if purge:
            deadline = time.monotonic() + files.KILL_DEADLINE
            for root in self._roots:
                for name in files.subgroups(root, "t-"):
                    files.remove_if_empty(os.path.join(root, name))
                files.remove(root, deadline)

    def _limit_memory(self, group: str, memory: int) -> None:
        limit = self._file("memory", group, "memory.limit_in_bytes")
        both = self._file("memory", group, "memory.memsw.limit_in_bytes")
        if not os.path.exists(both):
            # The kernel does not count swap; preflight has seen that there is none. Should some come later, this keeps
            # the group from most of it.
            files.write(self._file("memory", group, "memory.swappiness"), 0)
            files.write(limit, memory)
            return
        # Memory and swap together may never be below memory alone.
        if memory == _NO_LIMIT or memory > files.number(both):
            files.write(both, memory)
        files.write(limit, memory)
        files.write(both, memory)

    def _limit_sockets(self, group: str, memory: int) -> None:
        """Buffers of sockets are no part of memory in version 1: they have a count of their own, once it is limited.

        Raises `OSError`, EBUSY if there are more.
        """
        # A kernel without CONFIG_INET has no such file.
        with contextlib.suppress(FileNotFoundError):
            files.write(self._file("memory", group, "memory.kmem.tcp.limit_in_bytes"), memory)

    def _was_parent_full(self, group_id: str, sandbox_id: str) -> bool:
        known = self._parent_full.get(sandbox_id)
        if known is not None:
            return known
        # Nobody was told, such as after a restart: a tenant that never met its limit cannot have died of it. Newer
        # kernels do not count in memory.failcnt any more.
        group = f"t-{group_id}"
        most = files.number(self._file("memory", group, "memory.max_usage_in_bytes"))
        return most + _ONE_CHARGE < files.number(self._file("memory", group, "memory.limit_in_bytes"))

    def _is_parent_full(self) -> bool:
        """Whether the parent itself is out of memory now: the kernel tells it just before the groups below."""
        if self._parent_events is not None:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._parent_events)
                self._parent_full_at = time.monotonic()
        return time.monotonic() - self._parent_full_at < _SAME_EVENT

    def _file(self, controller: str, group: str, name: str) -> str:
        return os.path.join(self._mounts.controllers[controller], self._parent, group, name)

    def _above(self, name: str) -> str:
        return self._file("memory", "", name)


def _event(path: str, arguments: str) -> int:
    """Return an eventfd that the kernel counts up for the file at `path` (`cgroup.event_control`)."""
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        watched = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            control = os.path.join(os.path.dirname(path), "cgroup.event_control")
            files.write(control, f"{event} {watched} {arguments}".rstrip())
        finally:
            os.close(watched)
    except OSError:
        os.close(event)
        raise
    return event

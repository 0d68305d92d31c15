"""The supervisor's children: started, recorded, recognised again by a later supervisor, watched to their end."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from sandpost.ipc import Channel
from sandpost.kernel import files
from sandpost.kernel.processes import runs, start_time
from sandpost.model.messages import Part, ToSupervisor
from sandpost.supervisor import spawn


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A child as `<run_dir>/children.json` names it for the next supervisor."""

    part: Part
    index: int
    pid: int
    start_time: int
    release: str


@dataclass(slots=True, eq=False)
class Child:
    """A living child process. `ready` and `gone` are set once each."""

    known: Known
    ours: bool
    """Whether we are its parent; else a pidfd tells its end."""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    channel: Channel[ToSupervisor] | None = None
    retiring: bool = False
    status: int | None = None
    """Wait status, once it is gone, if it was ours."""

    @property
    def role(self) -> tuple[Part, int]:
        """Part and index."""
        return self.known.part, self.known.index

    @property
    def pid(self) -> int:
        """Its pid, its own as long as `gone` is not set."""
        return self.known.pid

    def send(self, message: msgspec.Struct, fds: tuple[int, ...] = ()) -> bool:
        """Send if it is connected; say whether it was."""
        # What is found to be closed while it is sent on is taken from us.
        channel = self.channel
        if channel is None or channel.closed:
            return False
        channel.send(message, fds)
        return not channel.closed

    def kill(self) -> None:
        """End it now."""
        if not self.gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Family:
    """All children that live. `on_end(child, status)` (None: not ours to know), `on_foreign(pid, status)`: others'."""

    def __init__(
        self,
        path: str,
        *,
        on_end: Callable[[Child, int | None], None],
        on_foreign: Callable[[int, int], None],
    ) -> None:
        self._path = path
        self._on_end = on_end
        self._on_foreign = on_foreign
        self._loop = asyncio.get_running_loop()
        self._pidfds: dict[int, int] = {}
        self.children: dict[int, Child] = {}
        self._helpers: set[int] = set()
        self._loop.add_signal_handler(signal.SIGCHLD, self.reap)

    def close(self) -> None:
        """Watch no more; what is no part ends."""
        self._loop.remove_signal_handler(signal.SIGCHLD)
        for pid in self._helpers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._helpers.clear()
        for pidfd in self._pidfds.values():
            self._loop.remove_reader(pidfd)
            os.close(pidfd)
        self._pidfds.clear()

    def start(self, part: Part, index: int, release: str, birth: spawn.Birth) -> Child:
        """Start a child; `OSError` if it cannot be."""
        newborn = spawn.Newborn(birth)
        pid = newborn.pid
        known = Known(part=part, index=index, pid=pid, start_time=start_time(pid), release=release)
        child = Child(known, ours=True)
        self.children[pid] = child
        # Before it is a part: one that is killed here leaves none that the next supervisor does not know of.
        self._save()
        try:
            newborn.go()
        except OSError:
            del self.children[pid]
            self._save()
            raise
        return child

    def run(self, birth: spawn.Birth) -> None:
        """Start a process that is no part and ends by itself, or when all does; `OSError` if it cannot be."""
        newborn = spawn.Newborn(birth)
        newborn.go()
        self._helpers.add(newborn.pid)

    def adopt(self, known: Known) -> Child | None:
        """Watch a child of an earlier supervisor; None if it ended meanwhile."""
        try:
            pidfd = os.pidfd_open(known.pid)
        except ProcessLookupError:
            return None
        if not runs(known.pid, known.start_time):
            os.close(pidfd)
            return None
        child = Child(known, ours=False)
        self.children[known.pid] = child
        self._pidfds[known.pid] = pidfd
        self._loop.add_reader(pidfd, self._ended, child)
        return child

    def adopted(self) -> None:
        """Write down who was adopted: all at once, since until then those who are yet to be stand there too."""
        self._save()

    def reap(self) -> None:
        """Collect every process that ended: children, and orphans that became ours as their subreaper."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._helpers:
                self._helpers.remove(pid)
                continue
            child = self.children.get(pid)
            if child is None or not child.ours:
                self._on_foreign(pid, status)
            else:
                self._forget(child, status)

    def _ended(self, child: Child) -> None:
        pidfd = self._pidfds.pop(child.pid)
        self._loop.remove_reader(pidfd)
        os.close(pidfd)
        self._forget(child, None)

    def _forget(self, child: Child, status: int | None) -> None:
        del self.children[child.pid]
        child.status = status
        child.gone.set()
        self._save()
        self._on_end(child, status)

    def _save(self) -> None:
        with contextlib.suppress(OSError):
            files.replace(self._path, msgspec.json.encode([child.known for child in self.children.values()]), 0o644)


def living(path: str) -> list[Known]:
    """Return the children of an earlier supervisor that still live, from its `children.json`."""
    try:
        with open(path, "rb") as file:
            found = msgspec.json.decode(file.read(), type=list[Known])
    except (FileNotFoundError, msgspec.DecodeError):
        return []
    return [known for known in found if runs(known.pid, known.start_time)]

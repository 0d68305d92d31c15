"""The running supervisor: children, their listening sockets, sandboxes' FIFOs.

All state that must outlive a kill of this process is on the machine: `children.json`, FIFOs, and listening sockets in
the living workers.
"""

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sandpost.ipc import Channel
from sandpost.kernel import calls, sockets
from sandpost.kernel.descriptors import close_all
from sandpost.logs.setup import get_logger
from sandpost.model.errors import HostUnfit, SandpostError
from sandpost.model.host import PLATFORM_PORTS, Host
from sandpost.model.messages import (
    Exited,
    Held,
    Listen,
    Part,
    Release,
    Reload,
    Restarted,
    Stopped,
    Streams,
    ToSupervisor,
    Unlisten,
)
from sandpost.supervisor import adoption, family, listening, platform, renewal, shutdown, spawn
from sandpost.supervisor.counts import EVERY, Counts
from sandpost.supervisor.family import Child, Family, Known
from sandpost.supervisor.fifos import Fifos
from sandpost.supervisor.reach import Reach
from sandpost.supervisor.restarts import Backoff
from sandpost.supervisor.talk import Talk

log = get_logger()

Role = tuple[Part, int]
Command = Callable[[Part, int, str], list[str]]

COVER_AFTER = 0.1
"""A worker that is not ready again so long after its end: another one accepts on its socket."""
START_WAIT = 60.0
TIDY_EVERY = 86400.0
"""A sandbox of a former image may live for days: that what it runs on is in use is noted as often as this."""
_START_TRIES = 5
_FOREIGN_KEPT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a supervisor is to run."""

    host: Host
    host_file: str
    release: str
    """Names the program's version; living children of another one are renewed."""
    output: int = 2
    """Descriptor that becomes children's stdout and stderr."""
    stdout: int = 1
    """Descriptor of the installation's own stdout, for who prints records there."""
    command: Command = spawn.part_command
    """Makes the command line of (part, index, host file); tests put small programs here."""
    reach: Callable[[Part, Host], Reach | None] = spawn.reach_of
    """Says what a part sees of the files; tests let theirs see their small programs too."""
    tidy: Sequence[str] = ()
    """A command that removes what nobody uses any more; run beside everything, once all that lives is adopted."""
    on_ready: Callable[[], None] = lambda: None
    on_ended: Callable[[], None] = lambda: None
    """Called when nothing of the installation is left; who asked for the stop hears of it afterwards."""
    reread: Callable[[Host], Host] = lambda host: host
    """Reads the settings again, writes the host file, returns the host; raises `SandpostError`."""


class Supervisor:
    """Runs one installation until it is told to stop. One `run` each."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.host = plan.host
        self.sockets: dict[int, socket.socket] = {}
        self.platform: list[socket.socket] = []
        """What egress listens with, in the order of `PLATFORM_PORTS`."""
        self.current: dict[Role, Child] = {}
        self.successors: dict[Role, Child] = {}
        self.stop_asked = asyncio.Event()
        self.urgent = asyncio.Event()
        self.fifos = Fifos()
        self.records = sockets.receive(self.host.records_socket, mode=0o620, gid=self.host.users.gid)
        """To which the parts send what they write; held here over a death of the collector, who reads it."""
        self.family = Family(plan.host.path("children.json"), on_end=self._ended, on_foreign=self._foreign_ended)
        self.counts = Counts()
        self.changed = asyncio.Event()
        """Set whenever a child says something or ends."""
        self._covers: dict[int, Child] = {}
        self._backoffs: dict[Role, Backoff] = {}
        self._starts: dict[Role, int] = {}
        self._foreign: deque[Exited] = deque(maxlen=_FOREIGN_KEPT)
        self._launched = False
        """Listening sockets are there and every part has been started or adopted."""
        self._running = False
        self._reload_asked = False
        self.reloaded = False
        """The host file was written anew while parts ran: who says hello from now on may have read the former one."""
        self._timers: set[asyncio.TimerHandle] = set()
        self._renewal: asyncio.Task[None] | None = None
        self._talk = Talk(self)

    @property
    def roles(self) -> list[Role]:
        """Every part that must run, in the order in which they are started."""
        proxies: list[Role] = [("proxy", index) for index in range(self.host.workers)]
        return [("controller", 0), ("egress", 0), *proxies, ("api", 0), ("collector", 0)]

    # --- life ---------------------------------------------------------------------------------------------

    async def run(self, previous: Sequence[Known] = ()) -> None:
        """Start or adopt (`previous`: living children of an earlier supervisor), run, stop, leave nothing.

        Raises `SandpostError` if the parts do not come up, or something is left behind.
        """
        calls.become_subreaper()
        sandboxes = bool(os.listdir(self.host.path("records")))
        self.fifos.reopen(self.host.path("fifos"))
        self._talk.open()
        self._count()
        failure: SandpostError | None = None
        try:
            await adoption.adopt(self, previous)
            if not self.stop_asked.is_set():
                self._launch()
            await self._wait_up(patient=bool(previous))
        except SandpostError as error:
            failure = error
        else:
            self._running = True
            if not self.stop_asked.is_set():
                # First the log: who is told that it is ready may look there.
                log.info("ready", children=len(self.current), adopted=len(previous), fifos=len(self.fifos))
                self.plan.on_ready()
                if self._reload_asked:
                    self.reload()
                elif previous:
                    # The host file may say other than what it said when they read it.
                    self._tell_settings()
                self._renew_strangers()
                self._tidy()
            await self.stop_asked.wait()
        # A start that failed ends no sandbox that an earlier one left.
        await self._end(purge=failure is None or not (sandboxes or previous))
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Ask for the end; asked again, for the end at once."""
        if self.stop_asked.is_set():
            self.urgent.set()
        log.info("stopping", at_once=self.urgent.is_set())
        self.stop_asked.set()
        self.changed.set()

    def reload(self) -> None:
        """Take up settings that can change (SIGHUP)."""
        if not self._running:
            # Parts that have yet to say hello, as all do that are adopted, would not hear of it.
            self._reload_asked = True
            return
        try:
            self.host = self.plan.reread(self.host)
        except SandpostError as error:
            log.warning("settings stay as they are", reason=error.reason, error=error.message)
            return
        self._tell_settings()
        log.info("settings taken up")

    def _tidy(self) -> None:
        if self.plan.tidy:
            try:
                self.family.run(spawn.Birth(command=self.plan.tidy, uid=0, gid=0, output=self.plan.output))
            except OSError as error:
                log.warning("what nobody uses stays for now", error=str(error))
            self.later(TIDY_EVERY, self._tidy)

    def _tell_settings(self) -> None:
        self.reloaded = True
        for child in self.family.children.values():
            child.send(Reload())

    def _count(self) -> None:
        self.counts.write(self.host.metrics_dir, children=len(self.family.children), fifos=len(self.fifos))
        self.later(EVERY, self._count)

    async def _end(self, *, purge: bool) -> None:
        self.stop_asked.set()
        for timer in self._timers:
            timer.cancel()
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        last = Stopped(error="it broke off as it never should: the log says why; start again and stop")
        try:
            await shutdown.end_children(self, shutdown.SERVING)
            platform.remove_address(self.host)
            try:
                if purge:
                    await shutdown.purge(self)
            finally:
                await shutdown.end_children(self, shutdown.READING)
            if purge:
                self.fifos.close()
                self.plan.on_ended()
                last = Stopped()
            else:
                last = Stopped(error="a start failed, the sandboxes of an earlier one live on: start again and stop")
        except SandpostError as error:
            last = Stopped(error=error.message)
            raise
        finally:
            self.family.close()
            self.fifos.close()
            self.records.close()
            # Last of all: whoever asked may start the next supervisor when he hears it.
            self._talk.close(last)

    # --- starting -----------------------------------------------------------------------------------------

    def start(self, role: Role, *, successor: bool = False) -> Child | None:
        """Start a part; a `successor` runs beside the present one until it takes its place. None: it could not be."""
        part, index = role
        uid, gid = spawn.user_of(part, self.host)
        birth = spawn.Birth(
            command=self.plan.command(part, index, self.plan.host_file),
            uid=uid,
            gid=gid,
            output=self.plan.output,
            stdout=self.plan.stdout if part == "collector" and self.host.stdout else None,
            listeners=self._listeners(part, index),
            reach=self.plan.reach(part, self.host),
        )
        self._starts[role] = self._starts.get(role, 0) + 1
        try:
            child = self.family.start(part, index, self.plan.release, birth)
        except OSError as error:
            log.warning("part cannot be started", part=part, index=index, error=str(error))
            if not successor:
                self._start_later(role)
            return None
        (self.successors if successor else self.current)[role] = child
        return child

    def _listeners(self, part: Part, index: int) -> list[int]:
        if part == "proxy":
            return [self.sockets[index].fileno()]
        return [sock.fileno() for sock in self.platform] if part == "egress" else []

    def succeed(self, role: Role) -> Child:
        """Put a part's successor into its place; return the former one, which is now to be retired."""
        former = self.current[role]
        self.current[role] = self.successors.pop(role)
        former.retiring = True
        return former

    def later(self, delay: float, action: Callable[..., object], *args: Any) -> None:
        """Do `action` after `delay` seconds, unless all ends before."""

        def run() -> None:
            self._timers.discard(timer)
            action(*args)

        timer = asyncio.get_running_loop().call_later(delay, run)
        self._timers.add(timer)

    def _start_later(self, role: Role) -> None:
        delay = self._backoffs.setdefault(role, Backoff()).next(asyncio.get_running_loop().time())
        if delay:
            self.later(delay, self._start_if_missing, role)
        else:
            self._start_if_missing(role)

    def _start_if_missing(self, role: Role) -> None:
        if role not in self.current and not self.stop_asked.is_set():
            self.start(role)

    async def _wait_up(self, *, patient: bool) -> None:
        """Wait until every part is ready; unless `patient`, `HostUnfit` if one of them does not come up."""
        deadline = asyncio.get_running_loop().time() + START_WAIT
        while not self.stop_asked.is_set():
            missing = [role for role in self.roles if role not in self.current or not self.current[role].ready.is_set()]
            if not missing:
                return
            (part, index), *_ = sorted(missing, key=lambda role: -self._starts.get(role, 0))
            late = asyncio.get_running_loop().time() > deadline
            if not patient and (late or self._starts.get((part, index), 0) > _START_TRIES):
                how = f"is not ready after {START_WAIT:g} s" if late else "ends again and again"
                raise HostUnfit(f"{_title((part, index))} {how}: its log lines say why")
            if late:
                return
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline + 0.1):
                    await self.changed.wait()

    def _launch(self) -> None:
        for index in range(self.host.workers):
            if index not in self.sockets:
                self.sockets[index] = listening.make(self.host)
        if not self.platform:
            self.platform = platform.open_sockets(self.host)
        self._launched = True
        for role in self.roles:
            if role not in self.current:
                self.start(role)

    def _renew_strangers(self) -> None:
        """Renew adopted parts of another release."""
        strangers = [role for role, child in self.current.items() if child.known.release != self.plan.release]
        if strangers:
            log.info("renewing parts of another release", parts=[_title(role) for role in strangers])
            self.renew(strangers, None)

    # --- ends ---------------------------------------------------------------------------------------------

    def _ended(self, child: Child, status: int | None) -> None:
        role = child.role
        how = "?" if status is None else os.waitstatus_to_exitcode(status)
        expected = child.retiring or self.stop_asked.is_set()
        if not expected:
            self.counts.ends[role[0]] += 1
        (log.info if expected else log.error)("part ended", part=role[0], index=role[1], pid_=child.pid, status=how)
        self.changed.set()
        if self.successors.get(role) is child:
            del self.successors[role]
        if self.current.get(role) is child:
            del self.current[role]
            if role in self.successors:
                self.current[role] = self.successors.pop(role)
            elif self._launched and not self.stop_asked.is_set():
                self._replace(role, retired=child.retiring)
        for index in [index for index, cover in self._covers.items() if cover is child]:
            del self._covers[index]
            self._cover(index)

    def _replace(self, role: Role, *, retired: bool) -> None:
        if retired:
            self.start(role)
        else:
            self._start_later(role)
        if role[0] == "proxy":
            self.later(COVER_AFTER, self._cover, role[1])

    def _cover(self, index: int) -> None:
        """Let a living worker accept on the socket of one that is not ready."""
        own = self.current.get(("proxy", index))
        if index in self._covers or self.stop_asked.is_set() or (own is not None and own.ready.is_set()):
            return
        for (part, other), child in sorted(self.current.items()):
            able = part == "proxy" and other != index and child.ready.is_set()
            if able and child.send(Listen(index=index), (self.sockets[index].fileno(),)):
                self._covers[index] = child
                self.counts.covers += 1
                log.info("worker covers for another", worker=other, missing=index)
                return

    def tell_foreign_ends(self) -> None:
        """Tell the controller of processes that we reaped and did not start; kept for the next while there is none."""
        controller = self.current.get(("controller", 0))
        while self._foreign and controller is not None and controller.send(self._foreign[0]):
            self._foreign.popleft()

    def _foreign_ended(self, pid: int, status: int) -> None:
        self._foreign.append(Exited(pid=pid, status=status))
        self.tell_foreign_ends()

    # --- what children ask for ----------------------------------------------------------------------------

    def uncover(self, index: int) -> None:
        """Worker `index` is ready: nobody accepts for it any more."""
        cover = self._covers.pop(index, None)
        if cover is not None:
            cover.send(Unlisten(index=index))
        if self._running:
            for other in self.sockets:
                self._cover(other)

    def hold(self, controller: Child, sandbox_id: str, fds: list[int]) -> None:
        """Hold a sandbox's FIFOs, pass them on, say so."""
        if self.fifos.hold(sandbox_id, fds):
            self._tell_collector(Streams(sandbox_id=sandbox_id), self.fifos.of(sandbox_id))
        if self.fifos.of(sandbox_id):
            controller.send(Held(sandbox_id=sandbox_id))

    def release(self, message: Release) -> None:
        """Let a sandbox's FIFOs go; the collector reads what is left."""
        self.fifos.release(message.sandbox_id)
        self._tell_collector(message)

    def take_sockets(self, indices: list[int], fds: list[int]) -> None:
        """Take back the listening sockets of living workers; `fds` are ours from now on."""
        for index, fd in zip(indices, fds, strict=False):
            if index in self.sockets or not 0 <= index < self.host.workers:
                os.close(fd)
            else:
                self.sockets[index] = socket.socket(fileno=fd)
        close_all(fds[len(indices) :])
        self.changed.set()

    def take_platform(self, fds: list[int]) -> None:
        """Take back the sockets of a living egress; `fds` are ours from now on."""
        if self.platform or len(fds) != len(PLATFORM_PORTS):
            close_all(fds)
            return
        self.platform = [socket.socket(fileno=fd) for fd in fds]
        self.changed.set()

    def renew(self, roles: Sequence[Role], channel: Channel[ToSupervisor] | None) -> None:
        """Renew `roles` one after another, and tell `channel` when it is done or why not."""
        if not self._running or self.stop_asked.is_set():
            error = "it is starting or stopping: try again in a moment"
        elif self._renewal is not None and not self._renewal.done():
            error = "a renewal is under way: try again in a moment"
        else:
            self.counts.renewals += 1
            self._renewal = asyncio.create_task(self._renew(roles, channel), name="renewal")
            return
        if channel is not None:
            channel.send(Restarted(pids={}, error=error))

    async def _renew(self, roles: Sequence[Role], channel: Channel[ToSupervisor] | None) -> None:
        error = ""
        try:
            await renewal.renew(self, roles)
        except SandpostError as failure:
            error = failure.message
            log.warning("renewal failed", error=error)
        else:
            log.info("renewed")
        if channel is not None:
            pids = {_title(role): child.pid for role, child in self.current.items()}
            channel.send(Restarted(pids=pids, error=error))

    def _tell_collector(self, message: Streams | Release, fds: tuple[int, ...] = ()) -> None:
        collector = self.current.get(("collector", 0))
        if collector is not None:
            collector.send(message, fds)


def _title(role: Role) -> str:
    return f"proxy {role[1]}" if role[0] == "proxy" else role[0]


def living(host: Host) -> list[Known]:
    """Return the children of an earlier supervisor of this installation that live."""
    return family.living(host.path("children.json"))

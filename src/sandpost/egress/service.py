"""The running process: its two lines, the clock, and its end."""

import asyncio
import contextlib
import os
import socket
import time

from sandpost.egress.asked import Asked
from sandpost.egress.counts import Counts
from sandpost.egress.door import Door
from sandpost.egress.gate import Gate
from sandpost.egress.notes import Notes
from sandpost.egress.resolver import Resolver
from sandpost.egress.tenancy import Tenancies
from sandpost.egress.upstream import Upstream
from sandpost.egress.ways import Sandbox, Ways
from sandpost.ipc.channel import Channel, Connector
from sandpost.kernel.descriptors import close_all
from sandpost.logs import figures
from sandpost.logs.setup import get_logger
from sandpost.model import host as host_file
from sandpost.model import messages as m

_TICK = 1.0
FIRST_TABLE = 1.0
"""Seconds that a process which starts waits for the controller before it serves: what is queued is not refused."""

log = get_logger()


class Egress:
    """One process. `sockets`: the resolver's datagrams, its connections, the gate's connections."""

    def __init__(self, path: str, sockets: list[socket.socket]) -> None:
        self._path = path
        self._host = host = host_file.load(path)
        self._sockets = sockets
        self._counts = Counts()
        self._notes = Notes()
        self._tenancies = Tenancies(host.egress_rate)
        self._ways = Ways(self._tenancies, self._policy_changed)
        self._resolver = Resolver(Upstream(host.resolvers), self._counts, self._notes, host.own_names)
        self._gate = Gate(self._resolver, self._counts, self._notes)
        asked = Asked(self._resolver, self._counts, self._notes)
        self._door = Door(sockets, ways=self._ways, asked=asked, gate=self._gate, counts=self._counts)
        self._owed: set[asyncio.Task[None]] = set()
        """Acknowledgements that wait for the end of something."""
        self._early: list[tuple[Channel[m.FromController], m.Gone]] | None = []
        """Ends that were told before the door was open: what these sandboxes sent is still to be taken. As many as the
        controller ends in `FIRST_TABLE`; None from then on."""
        self._told = asyncio.Event()
        self._retired = asyncio.Event()
        self._drain = host.drain_timeout
        self._figures_failed = False
        hello = m.Hello(part="egress", pid=os.getpid())

        def greet_supervisor(channel: Channel[m.FromSupervisor]) -> None:
            channel.send(hello)
            channel.send(m.Ready())

        self._controller: Connector[m.FromController] = Connector(
            host.controller_socket,
            m.FromController,
            self._on_controller,
            greet=lambda channel: channel.send(hello),
            on_lost=self._ways.lose_table,
        )
        self._supervisor: Connector[m.FromSupervisor] = Connector(
            host.supervisor_socket, m.FromSupervisor, self._on_supervisor, greet=greet_supervisor
        )

    async def run(self) -> None:
        """Serve until retired; then let connections end within the time given."""
        ticking = asyncio.create_task(self._tick())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_TABLE):
                    await self._told.wait()
            if not self._retired.is_set():
                self._door.open()
                self._end_early()
                log.info("egress ready", sandboxes=len(self._ways))
                await self._retired.wait()
            self._door.close()
            self._end_early()
            await self._finish()
        finally:
            ticking.cancel()
            self._send_notes()
            self._resolver.close()
            self._supervisor.close()
            self._controller.close()
            log.info("egress ended")

    def retire(self, timeout: float | None = None) -> None:
        """Take nothing new; end within `timeout` seconds."""
        self._drain = self._host.drain_timeout if timeout is None else timeout
        self._retired.set()

    # --- what the others say ----------------------------------------------------------------------------------

    def _on_controller(self, channel: Channel[m.FromController], message: m.FromController, fds: list[int]) -> None:
        close_all(fds)
        match message:
            case m.Ways():
                self._ways.take_table(message.ways, last=message.last)
                if message.last:
                    self._told.set()
            case m.WayOpened():
                self._ways.open(message.way)
            case m.Gone():
                self._gone(channel, message)
            case _:
                return

    def _end_early(self) -> None:
        early, self._early = self._early, None
        for channel, gone in early or ():
            self._gone(channel, gone)

    def _gone(self, channel: Channel[m.FromController], gone: m.Gone) -> None:
        if self._early is not None:
            self._early.append((channel, gone))
            return
        if not self._retired.is_set():
            # What the sandbox sent before its end is its own, not that of whoever gets its address.
            self._door.drain()
        left = self._ways.close(gone.sandbox_id)
        if not left:
            channel.send(m.Ack(seq=gone.seq))
            return

        async def acknowledge() -> None:
            await asyncio.wait(left)
            channel.send(m.Ack(seq=gone.seq))

        task = asyncio.create_task(acknowledge())
        self._owed.add(task)
        task.add_done_callback(self._owed.discard)

    def _policy_changed(self, sandbox: Sandbox) -> None:
        # What was kept under the former policy may be more than this one tells.
        self._resolver.cache.forget(sandbox.tenancy.name)
        self._gate.changed(sandbox)

    def _on_supervisor(self, channel: Channel[m.FromSupervisor], message: m.FromSupervisor, fds: list[int]) -> None:
        close_all(fds)
        match message:
            case m.GiveListeners():
                channel.send(m.Listeners(indices=[0, 1, 2]), [sock.fileno() for sock in self._sockets])
            case m.Retire():
                self.retire(message.timeout)
            case m.Reload():
                self._reload()
            case _:
                return

    def _reload(self) -> None:
        try:
            self._host = host = host_file.load(self._path)
        except (OSError, ValueError) as error:
            log.warning("host file cannot be read, going on as before", file=self._path, err=error)
            return
        self._tenancies.set_rate(host.egress_rate)
        self._resolver.own = frozenset(host.own_names)
        self._resolver.upstream = Upstream(host.resolvers)
        log.info("settings taken up")

    # --- the clock and the end ----------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            for tenant in self._tenancies.forget(time.monotonic()):
                self._resolver.cache.forget(tenant)
            self._send_notes()
            self._write_figures()
            await asyncio.sleep(_TICK)

    def _send_notes(self) -> None:
        # While the controller is away they wait, bounded.
        if self._controller.connected:
            for note in self._notes.take():
                self._controller.send(note)

    def _write_figures(self) -> None:
        report = self._counts.figures(
            sandboxes=len(self._ways),
            open_connections=self._gate.open,
            kept_bytes=self._resolver.cache.size,
            resolvers={server.shown: server.counted for server in self._resolver.upstream.servers},
            notes_dropped=self._notes.dropped,
        )
        try:
            figures.write(self._host.metrics_dir, report)
        except OSError as error:
            if not self._figures_failed:
                log.warning("figures cannot be written", folder=self._host.metrics_dir, err=error)
            self._figures_failed = True
        else:
            self._figures_failed = False

    async def _finish(self) -> None:
        """Let what is under way end, at most `_drain` seconds; break the rest off."""
        under_way = self._ways.under_way()
        if under_way:
            await asyncio.wait(under_way, timeout=self._drain)
        left = self._ways.close_all() | self._door.strangers | self._owed
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

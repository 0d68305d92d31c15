"""The running process: its two lines, its three sockets, and the clock."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from sandpost.egress import streams
from sandpost.egress.accepting import Connections, Datagrams
from sandpost.egress.asked import Asked
from sandpost.egress.counts import Counts
from sandpost.egress.gate import Gate
from sandpost.egress.notes import Notes
from sandpost.egress.question import LEAST, refusal
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
        self._asked = Asked(self._resolver, self._counts, self._notes)
        self._gate = Gate(self._resolver, self._counts, self._notes)
        self._datagrams: Datagrams | None = None
        self._connections: list[Connections] = []
        self._strangers: set[asyncio.Task[None]] = set()
        """What waits for the news whose it is, and acknowledgements that wait for the end of something."""
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
                self._open()
                log.info("egress ready", sandboxes=len(self._ways))
                await self._retired.wait()
            self._stop_taking()
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

    # --- what comes from sandboxes ---------------------------------------------------------------------------

    def _open(self) -> None:
        datagrams, questions, gate = self._sockets
        self._datagrams = Datagrams(datagrams, self._on_datagram)
        self._connections = [
            Connections(questions, self._connected(self._serve_questions)),
            Connections(gate, self._connected(self._gate.serve)),
        ]

    def _on_datagram(self, wire: bytes, address: str, port: int) -> None:
        sandbox = self._ways.at(address)
        if sandbox is None:
            self._later(self._hold_datagram(wire, address, port))
        else:
            self._answer(sandbox, wire, port)

    def _answer(self, sandbox: Sandbox, wire: bytes, port: int) -> None:
        reply = self._asked.at_once(sandbox, wire)
        if not isinstance(reply, bytes):
            question = reply

            async def ask() -> None:
                self._send(await self._asked.later(sandbox, question), sandbox.address, port)

            sandbox.start(ask())
        elif reply:
            self._send(reply, sandbox.address, port)

    async def _hold_datagram(self, wire: bytes, address: str, port: int) -> None:
        sandbox = await self._ways.wait(address)
        if sandbox is not None:
            self._answer(sandbox, wire, port)
            return
        self._counts.refused["unknown_sandbox"] += 1
        if len(wire) >= LEAST:
            self._send(refusal(wire), address, port)

    def _send(self, wire: bytes, address: str, port: int) -> None:
        if self._datagrams is not None:
            self._datagrams.send(wire, address, port)

    async def _serve_questions(self, sandbox: Sandbox, sock: socket.socket) -> None:
        await streams.serve(sandbox, sock, self._asked)

    def _connected(
        self, serve: Callable[[Sandbox, socket.socket], Coroutine[Any, Any, None]]
    ) -> Callable[[socket.socket, str], None]:
        async def hold(sock: socket.socket, address: str) -> None:
            sandbox = await self._ways.wait(address)
            if sandbox is None:
                sock.close()
            else:
                sandbox.start(serve(sandbox, sock))

        def taken(sock: socket.socket, address: str) -> None:
            sandbox = self._ways.at(address)
            if sandbox is None:
                self._later(hold(sock, address))
            else:
                sandbox.start(serve(sandbox, sock))

        return taken

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._strangers.add(task)
        task.add_done_callback(self._strangers.discard)

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

    def _gone(self, channel: Channel[m.FromController], gone: m.Gone) -> None:
        if self._datagrams is not None and not self._retired.is_set():
            # What the sandbox sent before its end is its own, not that of whoever gets its address.
            self._datagrams.drain()
            for connections in self._connections:
                connections.drain()
        left = self._ways.close(gone.sandbox_id)
        if not left:
            channel.send(m.Ack(seq=gone.seq))
            return

        async def acknowledge() -> None:
            await asyncio.wait(left)
            channel.send(m.Ack(seq=gone.seq))

        self._later(acknowledge())

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

    def _stop_taking(self) -> None:
        if self._datagrams is not None:
            self._datagrams.close()
        for connections in self._connections:
            connections.close()

    async def _finish(self) -> None:
        """Let what is under way end, at most `_drain` seconds; break the rest off."""
        under_way = self._ways.under_way()
        if under_way:
            await asyncio.wait(under_way, timeout=self._drain)
        left = self._ways.close_all() | self._strangers
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

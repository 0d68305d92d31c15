"""A proxy worker: makes its parts, wires them, keeps the time, and stops in order."""

import asyncio
import contextlib
import itertools
import secrets
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from sandpost.logs import figures as figures_file
from sandpost.logs.journal import Journal
from sandpost.logs.setup import get_logger
from sandpost.model import host as host_file
from sandpost.model.errors import ConfigError, SandpostError, Unavailable
from sandpost.model.host import Host
from sandpost.proxy import tls
from sandpost.proxy.access import Access
from sandpost.proxy.call import Call
from sandpost.proxy.client import Client
from sandpost.proxy.code import CodeStore
from sandpost.proxy.drain import Drain
from sandpost.proxy.figures import Counts
from sandpost.proxy.forwarded import Trust
from sandpost.proxy.handover import Taker
from sandpost.proxy.holding import Holding
from sandpost.proxy.http1.render import http_date
from sandpost.proxy.link import ControllerLink, Orders, SupervisorLink, listening_socket
from sandpost.proxy.plan import Plan, Plans
from sandpost.proxy.program import Program, examine
from sandpost.proxy.quota import Quota
from sandpost.proxy.routes import Routes
from sandpost.proxy.told import Told
from sandpost.proxy.upgrade import Tunnel
from sandpost.proxy.upstream import Pool

if TYPE_CHECKING:
    import ssl

    from sandpost.model.languages import Language

log = get_logger()

_DEADLINES_EVERY = 0.05
_MAX_REMEMBERED = 16 * 1024
_REMEMBERED = 16 << 20
"""Bytes of small programs that are known by what was sent; a program counts at least `_PROGRAM`."""
_PROGRAM = 1024
_BACKLOG = 4096


class Timed(Protocol):
    """Something under way that has deadlines."""

    due: float

    def timed_out(self) -> None:
        """`due` has passed."""

    def look_after(self, now: float) -> None:
        """Check the pace."""

    def cut(self) -> None:
        """End now."""


class Worker:
    """One worker process. Must be made in its event loop."""

    def __init__(self, host: Host, index: int, path: str, journal: Journal) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.host = host
        self.index = index
        self._path = path
        # Clocks that are read more often than they need be exact.
        self.clock = self.now()
        self.date = http_date(time.time())
        # What calls use.
        self.counts = Counts()
        self.told = Told(journal, index, lambda: self.host.request_records)
        self.trust = Trust(host.trusted_proxies)
        self.plans = Plans()
        self.codes = CodeStore(host.code_dir)
        self.holding = Holding(self._loop.call_soon, lambda: self.host.max_programs)
        self.access = Access(host, self.codes.forget, self._judge_again)
        self.quota = Quota(host.path("tables"), host.workers)
        self.link = ControllerLink(host, index)
        self.tell = self.link.send
        self.routes = Routes(self.counts, self.link.send, self.quota.in_flight)
        self.api = Pool(lambda factory: self._loop.create_unix_connection(factory, self.host.api_socket), self.counts)
        self.later = self._loop.call_later
        self.soon = self._loop.call_soon
        self._programs: dict[Language | None, dict[bytes, Program]] = {}
        self._remembered = 0
        self._prefix = secrets.token_hex(4)
        self._ids = itertools.count(1)
        # What is under way.
        self.clients: set[Client] = set()
        self.exchanges: set[Timed] = set()
        self.retiring = False
        self._tls: ssl.SSLContext | None = tls.context(host)
        self._servers: dict[int, asyncio.Server] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._retire_within = 0.0
        self._stopped = asyncio.Event()
        self._supervisor: SupervisorLink | None = None
        self._taker: Taker | None = None
        self._timers: list[asyncio.TimerHandle] = []

    # --- life -------------------------------------------------------------------------------------------------

    async def run(self, listener: socket.socket) -> None:
        """Serve at `listener` until told to stop."""
        self._tick_deadlines()
        self._tick_half()
        self._tick_second()
        self.link.open(self.routes)
        self._taker = Taker(self.host, self.index, self.adopt)
        await self._listen(self.index, listener)
        self._supervisor = SupervisorLink(
            self.host,
            self.index,
            Orders(
                listen=lambda index, fd: self._spawn(self._listen(index, listening_socket(fd))),
                unlisten=self.unlisten,
                listeners=lambda: {index: sock.fileno() for index, sock in self._sockets.items()},
                retire=self.retire,
                reload=self.reload,
            ),
        )
        log.info("proxy started", port=listener.getsockname()[1] if listener.family != socket.AF_UNIX else 0)
        await self._stopped.wait()
        await self._stop()

    def retire(self, timeout: float) -> None:
        """Finish what is under way within `timeout` seconds, then stop."""
        if self._stopped.is_set():
            return
        self.retiring = True
        self._retire_within = timeout
        self._stopped.set()

    async def _stop(self) -> None:
        log.info("proxy stops", connections=len(self.clients), timeout=self._retire_within)
        if self._taker is not None:
            self._taker.accepts = False
        for index in list(self._servers):
            self.unlisten(index)
        await Drain(self, self._retire_within).run()
        if self._taker is not None:
            self._taker.close()
        self.link.report()
        for sandbox in list(self.routes.sandboxes.values()):
            sandbox.pool.close()
        self.api.close()
        # One turn, so that what was closed is closed.
        await asyncio.sleep(0.01)
        for timer in self._timers:
            timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        self.told.second()
        self._write_figures()
        if self._supervisor is not None:
            self._supervisor.close()
        self.link.close()
        self.access.close()
        self.codes.close()
        self.quota.close()
        log.info("proxy stopped")

    def reload(self) -> None:
        """Read the host file again and take up what can change; what cannot be used is said and left."""
        try:
            host = host_file.load(self._path)
            context = tls.context(host)
        except (OSError, msgspec.MsgspecError, ConfigError) as error:
            log.warning("settings cannot be taken up; the former ones stay", error=str(error))
            return
        if (context is None) != (self._tls is None):
            log.warning("TLS is switched on and off by a restart alone")
        elif self._tls is not None:
            # The listening sockets hold this very context: new handshakes use what is loaded into it now.
            self._tls.load_cert_chain(host.tls_cert, host.tls_key or None)
        self.host = host
        self.trust = Trust(host.trusted_proxies)
        self.access.rebase(host)
        log.info("settings taken up")

    # --- listening --------------------------------------------------------------------------------------------

    async def _listen(self, index: int, sock: socket.socket) -> None:
        if self.retiring:
            sock.close()
            return
        self.unlisten(index)
        # The server owns a copy of its own, so that the socket can still be given to a supervisor.
        self._sockets[index] = sock
        self._servers[index] = await self._loop.create_server(self._accepted, sock=sock.dup(), backlog=_BACKLOG)

    def _accepted(self) -> asyncio.BaseProtocol:
        client, secured = Client(self), self._tls
        return client if secured is None else tls.Door(client, secured, self.host)

    def unlisten(self, index: int) -> None:
        """Accept no more on the listening socket of worker `index`."""
        server = self._servers.pop(index, None)
        if server is not None:
            server.close()
        sock = self._sockets.pop(index, None)
        if sock is not None:
            sock.close()

    def adopt(self, sock: socket.socket) -> None:
        """Serve a connection that another worker has accepted."""
        self.counts.taken_over += 1
        self._spawn(self._adopt(sock))

    async def _adopt(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(lambda: Client(self), sock)

    def admit(self, client: Client) -> bool:
        """Take a new connection in; False if there are too many."""
        counts = self.counts
        counts.accepted += 1
        self.clients.add(client)
        if len(self.clients) > self.host.max_connections:
            counts.refused_connections += 1
            return False
        return True

    def too_many_connections(self) -> SandpostError:
        """Return the error of a connection beyond the limit."""
        return Unavailable(
            f"this worker has {self.host.max_connections} connections, its limit: try again, or raise "
            "`http.max_connections`",
            retry_after=1,
            component="proxy",
        )

    # --- what calls use ---------------------------------------------------------------------------------------

    def next_id(self) -> str:
        """Return a request id: 16 letters, never the same twice."""
        return f"{self._prefix}{next(self._ids):08x}"

    def program_of(self, plan: Plan, code: bytes) -> Program:
        """Return the program that a body is, or raise why it is none; small ones are remembered."""
        found = self._programs.setdefault(plan.typed, {}).get(code)
        if found is None:
            found = examine(code, plan.typed)
            if len(code) <= _MAX_REMEMBERED:
                size = max(len(code), _PROGRAM)
                if self._remembered + size > _REMEMBERED:
                    self._programs.clear()
                    self._remembered = 0
                self._programs.setdefault(plan.typed, {})[code] = found
                self._remembered += size
        return found

    def _judge_again(self) -> None:
        """End what runs by a key that is good no longer: it was judged when it began, and may go on for long."""
        known: dict[tuple[str, bytes | None], SandpostError | None] = {}
        for one in list(self.exchanges):
            if isinstance(one, Call | Tunnel):
                plan = one.plan
                which = (plan.name, plan.key)
                if which not in known:
                    known[which] = None if plan.key is None else self.access.withdrawn(plan.name, plan.key)
                error = known[which]
                if error is not None:
                    one.withdraw(error)

    # --- time -------------------------------------------------------------------------------------------------

    def _again(self, slot: int, delay: float, tick: Callable[[], None]) -> None:
        timer = self._loop.call_later(delay, tick)
        if len(self._timers) <= slot:
            self._timers.append(timer)
        else:
            self._timers[slot] = timer

    def _tick_deadlines(self) -> None:
        self._again(0, _DEADLINES_EVERY, self._tick_deadlines)
        now = self.clock = self.now()
        for exchange in [exchange for exchange in self.exchanges if exchange.due <= now]:
            exchange.timed_out()

    def _tick_half(self) -> None:
        self._again(1, 0.25, self._tick_half)
        now = self.clock
        for exchange in list(self.exchanges):
            exchange.look_after(now)
        for client in list(self.clients):
            client.look_after(now)
        for sandbox in list(self.routes.sandboxes.values()):
            if sandbox.calls or sandbox.probe.asked_at:
                sandbox.watch(now)
        self.routes.give_up_waiting(now)

    def _tick_second(self) -> None:
        at = time.time()
        # Shortly after the second begins, so that Date is right.
        self._again(2, 1.0 - at % 1.0 + 0.002, self._tick_second)
        self.date = http_date(at)
        self.link.report()
        self.told.second()
        self.quota.forget_idle()
        now = self.clock
        for sandbox in self.routes.sandboxes.values():
            sandbox.pool.trim(now)
        self._write_figures()

    def _write_figures(self) -> None:
        counts = self.counts
        counts.connections = len(self.clients)
        sandboxes = self.routes.sandboxes
        upstreams = sum(len(sandbox.pool.connections) for sandbox in sandboxes.values())
        try:
            figures_file.write(
                self.host.metrics_dir, counts.figures(self.index, sandboxes=len(sandboxes), upstreams=upstreams)
            )
        except OSError as error:
            log.debug("figures cannot be written", error=str(error))

    def _spawn(self, work: "asyncio.Future[None] | object") -> None:
        task: asyncio.Task[None] = self._loop.create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

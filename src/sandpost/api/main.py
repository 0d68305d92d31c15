"""`sandpost api --host FILE`: the process. Becomes its own user, opens the store, serves until it is told to end."""

import argparse
import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence

from sandpost.api.app import Application
from sandpost.api.counts import Counts
from sandpost.api.listener import serve as serve_metrics
from sandpost.api.logs.frames import End
from sandpost.api.server import Server
from sandpost.api.service import Service
from sandpost.bus import drivers
from sandpost.ipc.channel import Channel, Connector
from sandpost.kernel import sockets, threads
from sandpost.kernel.descriptors import close_all
from sandpost.kernel.files import folder
from sandpost.logs.setup import configure, connect, get_logger
from sandpost.model.errors import SandpostError
from sandpost.model.figures import Figures
from sandpost.model.host import Host, load
from sandpost.model.messages import FromSupervisor, Hello, Ready, Reload, Retire
from sandpost.store import StoreError, Writer, open_writer
from sandpost.walls import modules
from sandpost.walls.own.confine import confine

log = get_logger()

STORE_RETRY = 2.0
"""Seconds between tries to open a store that cannot be opened; warm tenants are served meanwhile."""

_THREADS = 2
"""For what reads files that others write."""


def main(argv: Sequence[str]) -> int:
    """Run the api; return its exit status."""
    parser = argparse.ArgumentParser(prog="sandpost api", description="Serve the management routes.")
    parser.add_argument("--host", required=True, metavar="FILE", help="the installation's host.json")
    path = parser.parse_args(argv).host
    configure("api")
    try:
        host = load(path)
        _become(host)
        connect(host.records_socket)
        drivers.load(host)
        confine("api", host)
        asyncio.run(Api(path, host).run())
    except (SandpostError, OSError) as error:
        log.critical("the api cannot run", problem=str(error))
        return 1
    return 0


class Api:
    """The running process."""

    def __init__(self, host_file: str, host: Host) -> None:
        self._host_file = host_file
        self._host = host
        self._counts = Counts()
        self._ending = asyncio.Event()
        self._drain = host.drain_timeout
        self._ready = False
        self._service: Service | None = None

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or `Retire`."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(threads.started(_THREADS, "api"))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        supervisor: Connector[FromSupervisor] = Connector(
            self._host.supervisor_socket, FromSupervisor, self._on_message, greet=self._greet
        )
        try:
            writer = await self._open_store()
            if writer is not None:
                await self._serve(writer, supervisor)
        finally:
            supervisor.close()

    async def _open_store(self) -> Writer | None:
        """Return the writer; None if the end comes first."""
        while not self._ending.is_set():
            try:
                return await asyncio.to_thread(open_writer, self._host)
            except StoreError as error:
                log.warning("the store cannot be opened", problem=error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STORE_RETRY):
                    await self._ending.wait()
        return None

    async def _serve(self, writer: Writer, supervisor: Connector[FromSupervisor]) -> None:
        host = self._host
        service = self._service = Service(host, writer)
        sock = sockets.listen(host.api_socket, socket.SOCK_STREAM, mode=0o660, backlog=256, gid=host.users.gid)
        inode = os.stat(host.api_socket).st_ino
        server = Server(Application(service, self._counts).asgi)
        management = asyncio.create_task(server.serve(sockets=[sock]), name="management")
        ending = asyncio.create_task(self._ending.wait(), name="ending")
        metrics = asyncio.create_task(self._serve_metrics(service), name="metrics")
        try:
            self._ready = True
            supervisor.send(Ready())
            log.info("api ready", socket=host.api_socket)
            await asyncio.wait((management, ending), return_when=asyncio.FIRST_COMPLETED)
            service.streams.end(End.RESTART)
            server.end(self._drain)
            await management
        finally:
            sockets.unlink_own(host.api_socket, inode)
            ending.cancel()
            metrics.cancel()
            await asyncio.gather(ending, metrics, return_exceptions=True)
            await service.close()
        if not self._ending.is_set():
            raise SandpostError("the api's server ended by itself: see the log before this line")
        log.info("api ended")

    async def _serve_metrics(self, service: Service) -> None:
        address = self._host.metrics_listen
        if not address:
            return

        def own() -> Figures:
            streams = service.streams
            return self._counts.figures(
                controller_connected=service.controller.connected, streams=streams.count, ends=streams.ends
            )

        try:
            await serve_metrics(address, self._host.metrics_dir, own)
        except Exception:
            # Management goes on without them.
            log.exception("the metrics listener ended")

    def _greet(self, channel: Channel[FromSupervisor]) -> None:
        channel.send(Hello(part="api", pid=os.getpid()))
        if self._ready:
            channel.send(Ready())

    def _on_message(self, _channel: Channel[FromSupervisor], message: FromSupervisor, fds: list[int]) -> None:
        close_all(fds)
        match message:
            case Retire():
                self._drain = message.timeout
                self._ending.set()
            case Reload():
                self._reload()
            case _:
                return

    def _reload(self) -> None:
        """Take up new defaults and timeouts; sockets, users and folders stay those of the start."""
        try:
            fresh = load(self._host_file)
        except (OSError, ValueError) as error:
            log.warning("the host file cannot be read again, the old one stays", problem=str(error))
            return
        self._host = fresh
        self._drain = fresh.drain_timeout
        if self._service is not None:
            self._service.host = fresh
            self._service.reconcile_soon()
            self._service.modules.reconsider()
        log.info("settings taken up")


def _become(host: Host) -> None:
    """Give root up for the api's own user, after making what only root can make for it."""
    if os.geteuid() != 0 or host.users.api == 0:
        return
    # Proxies look the socket up by the common group; others do not see it.
    for path in (os.path.dirname(host.api_socket), os.path.dirname(host.store_path)):
        folder(path, 0o750, host.users.api, host.users.gid)
    modules.ensure(host)
    os.setgroups([])
    os.setresgid(host.users.gid, host.users.gid, host.users.gid)
    os.setresuid(host.users.api, host.users.api, host.users.api)

"""`sandpost proxy --host FILE --index N`: one worker, with its listening socket as descriptor 3."""

import argparse
import asyncio
import signal
import socket
from collections.abc import Sequence

import uvloop

from sandpost.kernel import descriptors
from sandpost.logs.journal import Journal
from sandpost.logs.setup import configure, connect, get_logger
from sandpost.model import host as host_file
from sandpost.model.errors import SandpostError
from sandpost.model.host import Host
from sandpost.proxy.link import listening_socket
from sandpost.proxy.worker import Worker
from sandpost.walls.own.confine import confine

LISTENING = 3
"""The descriptor at which a listening socket is handed down."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run until told to stop; return the exit status."""
    parser = argparse.ArgumentParser(prog="sandpost proxy", description="One worker of the public HTTP listener.")
    parser.add_argument("--host", required=True, metavar="FILE", help="the installation's host file")
    parser.add_argument("--index", type=int, default=0, help="the worker's number")
    options = parser.parse_args(argv)
    configure("proxy", options.index)
    log = get_logger()
    try:
        descriptors.allow_most()
        host = host_file.load(options.host)
        # Before the loop is made, whose own descriptors could be mistaken for it.
        listener = _listener(host.listen_host, host.listen_port)
        journal = connect(host.records_socket)
        confine("proxy", host)
        uvloop.run(_serve(host, options.index, options.host, listener, journal))
    except SandpostError as error:
        log.critical("proxy cannot start", reason=error.reason, error=error.message)
        return 1
    return 0


async def _serve(host: Host, index: int, path: str, listener: socket.socket, journal: Journal) -> None:
    worker = Worker(host, index, path, journal)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: worker.retire(worker.host.drain_timeout))
    loop.add_signal_handler(signal.SIGHUP, worker.reload)
    await worker.run(listener)


def _listener(address: str, port: int) -> socket.socket:
    """Return the socket that was handed down, or one of our own when a worker is run by hand."""
    try:
        sock = listening_socket(LISTENING)
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return sock
        sock.detach()
    except OSError:
        pass
    return socket.create_server((address, port), reuse_port=True, backlog=4096)

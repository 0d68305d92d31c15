"""`sandpost egress --host FILE`: the sandboxes' resolver, and the gate of tenants with an allow-list.

Its sockets come from who starts it: datagrams for the resolver as descriptor 3, its connections as 4, the gate's as 5.
Whose an address is comes from the controller; without it, who is known is served.
"""

import argparse
import asyncio
import signal
import socket

import uvloop

from sandpost.egress.service import Egress
from sandpost.kernel import descriptors
from sandpost.logs.setup import configure, connect, get_logger
from sandpost.model import host as host_file
from sandpost.model.errors import SandpostError
from sandpost.walls.own.confine import confine

FIRST = 3
"""The first of the descriptors."""

log = get_logger()


def main(argv: list[str]) -> int:
    """Run until retired or told to end; return the process's status."""
    parser = argparse.ArgumentParser(prog="sandpost egress", description="Sandboxes' resolver and gate outwards.")
    parser.add_argument("--host", required=True, metavar="FILE", help="the host file that the supervisor wrote")
    path = parser.parse_args(argv).host
    configure("egress")
    descriptors.allow_most()
    host = host_file.load(path)
    try:
        # Before the loop is made, whose own descriptors could be mistaken for them.
        sockets = [socket.socket(fileno=FIRST + offset) for offset in range(len(host_file.PLATFORM_PORTS))]
    except OSError:
        log.critical("egress gets its sockets as descriptors 3, 4 and 5: `sandpost serve` starts it with them")
        return 1
    connect(host.records_socket)
    try:
        confine("egress", host)
    except SandpostError as error:
        log.critical("egress cannot run", reason=error.reason, error=error.message)
        return 1
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(path, sockets))
    return 0


async def _serve(path: str, sockets: list[socket.socket]) -> None:
    egress = Egress(path, sockets)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, egress.retire)
    await egress.run()

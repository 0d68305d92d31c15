"""`sandpost controller --host FILE [--purge]`."""

import argparse
import asyncio
import os
import signal
from collections.abc import Sequence

import uvloop

from sandpost.controller.controller import Controller
from sandpost.controller.purge import purge
from sandpost.engines.oci import OciEngine
from sandpost.kernel import calls, capabilities, descriptors
from sandpost.logs.journal import Journal
from sandpost.logs.setup import configure, connect, get_logger
from sandpost.model import host as host_file
from sandpost.model.errors import HostUnfit, SandpostError
from sandpost.model.host import Host
from sandpost.walls.own import root

log = get_logger()

_QUICK = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run until told to retire, or remove everything with `--purge`; return the exit status."""
    parser = argparse.ArgumentParser(prog="sandpost controller", description="Makes, gives, watches, ends sandboxes.")
    parser.add_argument("--host", required=True, metavar="FILE", help="the installation's host file")
    parser.add_argument("--purge", action="store_true", help="remove every sandbox and what they share, and end")
    parser.add_argument("--at-once", action="store_true", help="with `--purge`: without waiting for programs' own ends")
    options = parser.parse_args(argv)
    configure("controller")
    try:
        if os.geteuid() != 0:
            raise HostUnfit("the controller makes namespaces and control groups: run it as root")
        host = host_file.load(options.host)
        journal = connect(host.records_socket)
        descriptors.allow_most()
        capabilities.give_up(root.UNUSED)
        if options.purge:
            return uvloop.run(_purge(host, at_once=options.at_once))
        if not os.path.exists(host.supervisor_socket):
            calls.become_subreaper()
        uvloop.run(_serve(host, options.host, journal))
    except SandpostError as error:
        log.critical("the controller cannot run", reason=error.reason, error=error.message)
        return 1
    return 0


async def _serve(host: Host, path: str, journal: Journal) -> None:
    controller = Controller(host, OciEngine(host), path, journal)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, controller.retire, _QUICK)
    loop.add_signal_handler(signal.SIGHUP, controller.reload)
    await controller.run()


async def _purge(host: Host, *, at_once: bool) -> int:
    left = await purge(host, OciEngine(host), at_once=at_once)
    for what in left:
        log.error("could not be removed", what=what)
    return 1 if left else 0

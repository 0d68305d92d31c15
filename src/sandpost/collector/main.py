"""`sandpost collector`: reads what sandboxes print and brings it to the log bus as records.

Descriptors come from the supervisor, the news whose a sandbox is from the controller. Without the controller the
known sandboxes are drained as before; without the supervisor too. A collector that starts gets everything again.
"""

import argparse
import asyncio
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import uvloop

from sandpost.bus import drivers
from sandpost.collector.drain import Drain
from sandpost.collector.intake import Intake
from sandpost.collector.printed import Printed
from sandpost.collector.tapped import Tapped
from sandpost.ipc.channel import Channel, Connector
from sandpost.kernel import descriptors
from sandpost.kernel.descriptors import close_all
from sandpost.logs import figures
from sandpost.logs.setup import configure, connect, get_logger
from sandpost.model import host as host_file
from sandpost.model import messages as m
from sandpost.model.errors import SandpostError
from sandpost.model.figures import Figures, counter, gauge
from sandpost.model.host import Host
from sandpost.walls.own.confine import confine

if TYPE_CHECKING:
    from sandpost.bus.contract import Writer
    from sandpost.collector.otlp import Outgoing

_FIGURES_EVERY = 1.0

log = get_logger()


def main(argv: list[str]) -> int:
    """Run the collector until it is retired or told to end; return the process's status."""
    parser = argparse.ArgumentParser(prog="sandpost collector", description="Reads what sandboxes print.")
    parser.add_argument("--host", required=True, metavar="FILE", help="the host file that the supervisor wrote")
    path = parser.parse_args(argv).host
    configure("collector")
    descriptors.allow_most()
    try:
        host = host_file.load(path)
        connect(host.records_socket)
        drivers.load(host)
        if host.otlp is not None:
            # Before it gives up what it does not need.
            import sandpost.collector.otlp  # noqa: F401, PLC0415
        confine("collector", host)
    except SandpostError as error:
        log.critical("the collector cannot run", reason=error.reason, error=error.message)
        return 1
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(path, host))
    return 0


async def _serve(path: str, host: Host) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    collector = Collector(path, host, ended)
    bringing = asyncio.create_task(collector.run(), name="bus")
    # Whatever ends it is not foreseen: another process goes on from what is in the spools.
    bringing.add_done_callback(lambda _: ended.set())
    log.info("collector ready")
    try:
        while not ended.is_set():
            collector.write_figures()
            try:
                async with asyncio.timeout(_FIGURES_EVERY):
                    await ended.wait()
            except TimeoutError:
                continue
    finally:
        bringing.cancel()
        failed = (await asyncio.gather(bringing, return_exceptions=True))[0]
        await collector.close()
        if isinstance(failed, Exception):
            raise failed
        log.info("collector ended")


def _outgoing(host: Host) -> "Outgoing | None":
    if host.otlp is None:
        return None
    from sandpost.collector.otlp import Outgoing  # noqa: PLC0415

    return Outgoing(host, host.otlp, socket.gethostname())


class Collector:
    """The process: two connections, the drain, the figures."""

    def __init__(self, path: str, host: Host, ended: asyncio.Event) -> None:
        self._path = path
        self._ended = ended
        self._host = host
        writer: Writer = drivers.writer(self._host)
        self._bus = writer
        self._outgoing = _outgoing(host)
        self._printed = Printed() if host.stdout else None
        self._ways_out = [one for one in (self._outgoing, self._printed) if one is not None]
        for one in self._ways_out:
            one.start()
            writer = Tapped(writer, one.take)
        self._drain = Drain(
            writer, self._host.spool_dir, rate=self._host.defaults.output, spool=self._host.spool,
            hostname=socket.gethostname(), pid=os.getpid(),
        )  # fmt: skip
        self._intake = Intake(
            writer, self._host.users,
            counts=self._drain.counts, room=self._drain.bus_room, lose=self._drain.lose,
        )  # fmt: skip
        self._drain.on_room = self._intake.go_on
        self._table: set[str] = set()
        self._figures_failed = False
        hello = m.Hello(part="collector", pid=os.getpid())

        def greet_supervisor(channel: Channel[m.FromSupervisor]) -> None:
            channel.send(hello)
            channel.send(m.Ready())
            self._drain.supervisor_came = True

        self._controller: Connector[m.FromController] = Connector(
            self._host.controller_socket,
            m.FromController,
            self._on_controller,
            greet=lambda channel: channel.send(hello),
            on_lost=self._on_controller_lost,
        )
        self._supervisor: Connector[m.FromSupervisor] = Connector(
            self._host.supervisor_socket, m.FromSupervisor, self._on_supervisor, greet=greet_supervisor
        )

    async def run(self) -> None:
        """Bring records to the bus until cancelled."""
        await self._drain.run()

    async def close(self) -> None:
        """Write what is unfinished and let go of everything. `run` has ended."""
        self._supervisor.close()
        self._controller.close()
        self._intake.close()
        await self._drain.close()
        for one in self._ways_out:
            await asyncio.to_thread(one.close)

    def write_figures(self) -> None:
        """Leave the figures for the metrics listener; forget tenants that are long gone."""
        self._drain.forget_tenants()
        counts = self._drain.counts
        dropped = {"over_rate": counts.over_rate, "unwritten": counts.unwritten, "unassigned": counts.unassigned}
        problem = self._drain.problem
        samples = [
            gauge("sandpost_log_bus_up", "Whether the log bus keeps what it is given.", float(not problem)),
            counter("sandpost_output_bytes_total", "Bytes read from sandboxes.", counts.bytes_read),
            counter("sandpost_output_records_total", "Records of sandboxes kept.", counts.kept),
            counter("sandpost_platform_records_total", "Records that the parts wrote.", counts.platform),
            counter(
                "sandpost_platform_strange_total",
                "What parts sent as records and is none, or not theirs to say.",
                counts.strange,
            ),
            counter("sandpost_output_forged_total", "Bytes in the runtime's stream that were no frame.", counts.forged),
            *(
                counter("sandpost_output_dropped_total", "Records dropped, by reason.", count, reason=reason)
                for reason, count in dropped.items()
            ),
            gauge("sandpost_output_sandboxes", "Sandboxes whose output is read.", self._drain.sandboxes),
            gauge("sandpost_output_spooled_bytes", "Bytes that spools take.", self._drain.spooled),
        ]
        outgoing = self._outgoing
        if outgoing is not None:
            text = "Records on their way out by OTLP, by what became of them."
            samples += [
                counter("sandpost_otlp_records_total", text, outgoing.sent, result="sent"),
                counter("sandpost_otlp_records_total", text, outgoing.lost, result="lost"),
            ]
        if self._printed is not None:
            text = "Records that nobody read from stdout in time."
            samples.append(counter("sandpost_stdout_lost_total", text, self._printed.lost))
        report = Figures(
            part="collector", index=0, pid=os.getpid(), at=time.time(), samples=samples, problem=problem,
            problem_out="" if outgoing is None else outgoing.problem,
        )  # fmt: skip
        try:
            figures.write(self._host.metrics_dir, report)
        except OSError as error:
            if not self._figures_failed:
                log.warning("figures cannot be written", folder=self._host.metrics_dir, err=error)
            self._figures_failed = True
        else:
            self._figures_failed = False

    def _on_supervisor(self, _channel: Channel[m.FromSupervisor], message: m.FromSupervisor, fds: list[int]) -> None:
        if isinstance(message, m.Streams):
            self._drain.take(message.sandbox_id, fds)
            return
        if isinstance(message, m.RecordsSocket) and len(fds) == 1:
            self._intake.take(socket.socket(fileno=fds[0]))
            return
        close_all(fds)
        if isinstance(message, m.Release):
            self._drain.release(message.sandbox_id)
        elif isinstance(message, m.Retire):
            # Nothing is under way that could not end now: FIFOs and spools keep what the next one goes on with.
            self._ended.set()
        elif isinstance(message, m.Reload):
            self._reload()

    def _on_controller(self, _channel: Channel[m.FromController], message: m.FromController, fds: list[int]) -> None:
        close_all(fds)
        if isinstance(message, m.Assigned):
            self._drain.assign(message.route.sandbox_id, message.route.tenant, message.route.output)
        elif isinstance(message, m.Table):
            for route in message.routes:
                self._drain.assign(route.sandbox_id, route.tenant, route.output)
                self._table.add(route.sandbox_id)
            if message.last:
                self._drain.compare(self._table)
                self._table.clear()
        elif isinstance(message, m.Gone):
            self._drain.gone(message.sandbox_id)

    def _on_controller_lost(self) -> None:
        self._table.clear()
        self._drain.left_alone()

    def _reload(self) -> None:
        try:
            self._host = host_file.load(self._path)
        except (OSError, ValueError) as error:
            log.warning("host file cannot be read, going on as before", file=self._path, err=error)
            return
        self._drain.set_rate(self._host.defaults.output)
        self._drain.set_spool(self._host.spool)
        drivers.take_up(self._bus, self._host)

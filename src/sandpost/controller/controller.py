"""The controller: one process a host that makes sandboxes, gives them to tenants, watches and ends them.

The shell around `Desk` and `Fleet`: it hands them what happens (messages, ends, time) and carries out what they
decide. Everything runs in one event loop; what blocks, the engine does in threads of its own.
"""

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import msgspec

from sandpost.controller import cpu, figures
from sandpost.controller.adoption import adopt
from sandpost.controller.clients import Client, Clients
from sandpost.controller.cpu import CpuHistory
from sandpost.controller.desk import Desk, Policy
from sandpost.controller.disk import Disk, ended
from sandpost.controller.fifos import Fifos
from sandpost.controller.ledger import Ledger
from sandpost.controller.lifecycle import Fleet, Sandbox
from sandpost.controller.listing import infos, status
from sandpost.controller.maker import Maker, address
from sandpost.controller.meter import ROUND, STEPS, Meter
from sandpost.controller.record import ProxyKey, Record
from sandpost.controller.room import fits
from sandpost.controller.suspicion import Suspicion
from sandpost.controller.telling import Telling
from sandpost.controller.watch import MemoryWatch
from sandpost.controller.ways import Ways
from sandpost.engines.contract import Engine
from sandpost.ipc import Channel, Connector
from sandpost.kernel import threads
from sandpost.kernel.descriptors import close_all
from sandpost.kernel.processes import runs
from sandpost.logs import figures as figures_file
from sandpost.logs.journal import Journal
from sandpost.logs.setup import get_logger
from sandpost.model import host as host_file
from sandpost.model.ends import End
from sandpost.model.figures import Histogram
from sandpost.model.host import SANDBOX_PORT, Host
from sandpost.model.limits import EngineName, Limits
from sandpost.model.messages import (
    Ack,
    Ask,
    AskStatus,
    Done,
    Engines,
    Exited,
    Finished,
    FromSupervisor,
    Held,
    Hello,
    Hit,
    ListSandboxes,
    Named,
    Noted,
    Ready,
    Reload,
    Replace,
    Report,
    Retire,
    Suspect,
    TenantChanged,
    TenantRemoved,
    ToController,
    UsageTaken,
)
from sandpost.network.addresses import SlotRing

log = get_logger()

REFILL_AFTER = 0.06
"""Seconds after an assignment in which the first call has the processors to itself; then the pool is refilled.

By then those of programs that need no compiler of C# are answered, on slow machines too (46 ms at p99)."""
PROBE_WITHIN = 2.0
"""Seconds that a pooled sandbox has to answer when a controller starts."""
SUPERVISOR_WITHIN = 0.3
"""Seconds to wait for a supervisor before it is taken for absent."""
_PROBES = 16
_FLUSH = 5.0
_THREADS = 4
"""For looks at the firewall and the connections of sandboxes that are gone."""


class Controller:
    """See the module. `run` serves until `retire`."""

    def __init__(self, host: Host, engine: Engine, path: str, journal: Journal) -> None:
        self._path = path
        self._host = host
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._began = time.monotonic()
        self._disk = Disk(host)
        self._supervisor: Connector[FromSupervisor] | None = None
        self._fifos = Fifos(host.path("fifos"), self._to_supervisor, time.time)
        self._slots = SlotRing(host.slots)
        self._fleet = Fleet(self, self, host_port=lambda slot: (address(host, slot), SANDBOX_PORT))
        self._desk = Desk(self._fleet, self, _policy(host))
        self._meter = Meter(self._fleet, engine, Ledger())
        self._hits: Counter[str] = Counter()
        self._telling = Telling(journal)
        self._maker = Maker(host, engine, self._fifos, self._meter)
        self._memory = MemoryWatch(self._desk, engine, self._meter, host.memory_reserve, self._pump_soon)
        self._cpu = CpuHistory(self._fleet, self._meter)
        self._suspicion = Suspicion(self._desk, self._meter, self._cpu)
        self._start_seconds = Histogram(figures.START_BOUNDS)
        self._clients = Clients(
            host, joined=self._joined, message=self._on_message, left=self._left, proxy_dead=self._proxy_dead
        )
        self._ways = Ways(
            host, self._fleet,
            tell_egress=lambda message: self._clients.tell_part("egress", message),
            tell_tenant=self._telling.noted,
        )  # fmt: skip
        self._pump_timer: asyncio.TimerHandle | None = None
        self._pump_at = 0.0
        self._timers: list[asyncio.Task[None]] = []
        self._retired: asyncio.Future[float] = self._loop.create_future()
        self._listening = False
        self._maker.ready = self._on_ready
        self._maker.failed = self._on_failed
        self._maker.ended = self._on_ended
        self._maker.removed = self._on_removed
        self._maker.is_shared = lambda sandbox: not sandbox.record.exclusive and len(self._fleet.proxies) > 1
        self._maker.forget = self._ways.forget
        self._maker.parent_tells = lambda: self._supervisor is not None and self._supervisor.connected
        self._desk.on_end = self._on_end
        self._desk.on_assigned = self._telling.assigned

    # --- life ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Adopt what is there, serve, and leave everything running when told to retire."""
        self._loop.set_default_executor(threads.started(_THREADS, "kernel"))
        self._disk.open()
        self._fifos.open()
        await self._engine.open()
        await self._find_supervisor()
        await self._take_over()
        self._memory.open()
        self._clients.open()
        self._listening = True
        self._to_supervisor(Ready())
        self._pump()
        self._timers = [
            self._loop.create_task(self._every(1.0, self._second)),
            self._loop.create_task(self._every(ROUND / STEPS, self._measure)),
            self._loop.create_task(self._every(cpu.EVERY, lambda: self._cpu.step(time.monotonic()))),
            self._loop.create_task(self._every(_FLUSH, self._flush)),
        ]
        log.info("the controller serves", sandboxes=len(self._fleet.sandboxes), supervisor=self._maker.parent_tells())
        await self._close(await self._retired)

    def retire(self, patience: float) -> None:
        """Let everything run on, and end within `patience` seconds."""
        if not self._retired.done():
            self._retired.set_result(patience)

    def reload(self) -> None:
        """Read the host file again and take up what can change without a new process."""
        try:
            host = host_file.load(self._path)
        except (OSError, msgspec.MsgspecError):
            log.exception("the host file cannot be read: its old values stand", path=self._path)
            return
        # The engine was made for its image; a new one comes with a new process.
        self._desk.policy = replace(_policy(host), image=self._host.image)
        self._engine.take_up(host)
        self._ways.take_up(host)
        self._memory.reserve = host.memory_reserve
        self._memory.bound()
        log.info("settings taken up", pool_size=host.pool_size, queue=host.queue)
        self._pump_soon()

    async def _close(self, patience: float) -> None:
        self._desk.policy = replace(self._desk.policy, pool_size=0)
        self._clients.close()
        for task in self._timers:
            task.cancel()
        await asyncio.gather(*self._timers, return_exceptions=True)
        self._memory.close()
        self._suspicion.close()
        await self._maker.settle(max(0.1, patience / 2))
        self._disk.write_usage(self._meter.ledger.snapshot())
        await self._maker.close()
        self._ways.close()
        if self._supervisor is not None:
            self._supervisor.close()
        self._fifos.close()
        if self._pump_timer is not None:
            self._pump_timer.cancel()
        await self._engine.close(purge=False)
        log.info("the controller ends; sandboxes run on", sandboxes=len(self._fleet.sandboxes))

    async def _find_supervisor(self) -> None:
        self._supervisor = Connector(
            self._host.supervisor_socket, FromSupervisor, self._from_supervisor, greet=self._greet_supervisor
        )
        if not self._supervisor.connected:
            await asyncio.sleep(SUPERVISOR_WITHIN)
        # What it has to tell of ends that nobody heard of comes at once.
        await asyncio.sleep(0.02)

    async def _take_over(self) -> None:
        records = {record.sandbox_id: record for record in self._disk.load() if record.slot < self._host.slots}
        self._meter.ledger = Ledger(self._disk.usage())
        self._meter.ledger.keep(records)
        taken = {record.slot for record in records.values()}
        for found in self._engine.find():
            if found.sandbox_id in records:
                continue
            log.warning("a sandbox without a record is removed", sandbox_id=found.sandbox_id)
            if found.slot is None or found.slot in taken:
                await self._engine.remove(found.sandbox_id, found.group_id, found.slot or 0)
            else:
                taken.add(found.slot)
                record = ended(found.sandbox_id, found.group_id, found.slot, None)
                self._disk.write(record)
                records[found.sandbox_id] = record
        latest = max(records.values(), key=lambda record: record.started_at, default=None)
        self._slots = SlotRing(self._host.slots, first=(latest.slot + 1) % self._host.slots if latest else 0)
        self._ways.begin(records.values())
        alive = {key: runs(record.pid, record.start_time) for key, record in records.items()}
        answering = await self._probe(
            [one for one in records.values() if one.phase == "pooled" and alive[one.sandbox_id]]
        )
        adopt(
            self._desk,
            records.values(),
            self._clients.expect(self._disk.roster()),
            runs=lambda record: alive[record.sandbox_id],
            answers=lambda record: record.sandbox_id in answering,
            cause=self._maker.cause,
            now=time.monotonic(),
        )
        for sandbox in list(self._fleet.sandboxes.values()):
            if sandbox.phase != "gone":
                self._maker.adopt(sandbox)

    async def _probe(self, records: list[Record]) -> set[str]:
        """Return which pooled sandboxes answer."""
        places = asyncio.Semaphore(_PROBES)

        async def answers(record: Record) -> bool:
            async with places:
                return await self._maker.answers(record, PROBE_WITHIN)

        results = await asyncio.gather(*(answers(record) for record in records))
        return {record.sandbox_id for record, answered in zip(records, results, strict=True) if answered}

    # --- what Fleet and Desk make happen ------------------------------------------------------------------

    def write(self, record: Record) -> None:
        self._disk.write(record)

    def erase(self, sandbox_id: str) -> None:
        self._disk.erase(sandbox_id)

    def write_roster(self, proxies: Iterable[ProxyKey]) -> None:
        self._disk.write_roster(proxies)

    def set_limits(self, group_id: str, limits: Limits, engine: EngineName) -> None:
        self._engine.set_limits(group_id, limits, engine)

    def open_way(self, sandbox: Sandbox) -> None:
        self._ways.open(sandbox)

    def close_way(self, sandbox: Sandbox) -> None:
        self._ways.shut(sandbox)

    def tell(self, proxy: ProxyKey | None, message: msgspec.Struct) -> None:
        self._clients.tell(proxy, message)

    def start(self, sandbox: Sandbox) -> None:
        self._maker.start(sandbox)

    def remove(self, sandbox: Sandbox) -> None:
        self._maker.remove(sandbox)

    def fits(self, engine: EngineName, starting: list[EngineName]) -> bool:
        return fits(self._memory.measure(), engine, starting)

    def deal(self) -> int:
        return self._slots.deal()

    def claim(self, slot: int) -> None:
        self._slots.claim(slot)

    def give_back(self, slot: int) -> None:
        self._slots.give_back(slot)

    # --- what the maker tells -----------------------------------------------------------------------------

    def _on_ready(self, sandbox: Sandbox, seconds: float) -> None:
        self._start_seconds.add(seconds)
        self._desk.ready(sandbox, seconds, time.monotonic())

    def _on_failed(self, sandbox: Sandbox, message: str) -> None:
        self._pump_soon(self._desk.failed(sandbox, message, time.monotonic()))

    def _on_ended(self, sandbox: Sandbox, word: End, message: str) -> None:
        if sandbox.phase == "starting":
            self._on_failed(sandbox, f"it ended as it started ({message})")
        else:
            self._desk.end(sandbox, word, message, time.monotonic())
            self._pump_soon()

    def _on_removed(self, sandbox: Sandbox) -> None:
        self._fleet.removed(sandbox)
        self._pump_soon()

    def _on_end(self, sandbox: Sandbox) -> None:
        record = sandbox.record
        word = record.word or "platform"
        self._meter.ended(sandbox, word, time.monotonic())
        self._telling.ended(sandbox)
        log.info(
            "sandbox ended", sandbox_id=record.sandbox_id, tenant=record.tenant, word=word, reason=record.message,
            calls=sandbox.calls,
        )  # fmt: skip

    # --- what clients tell --------------------------------------------------------------------------------

    def _joined(self, client: Client) -> None:
        if client.proxy is not None:
            self._fleet.join(client.proxy)
        elif client.part == "collector":
            for message in self._fleet.table():
                client.channel.send(message)
        elif client.part == "api":
            self._tell_usage()

    def _left(self, client: Client) -> None:
        if client.proxy is not None:
            self._desk.lost(client.proxy)
            self._tell_usage()

    def _proxy_dead(self, proxy: ProxyKey) -> None:
        self._desk.proxy_dead(proxy, time.monotonic())

    def _on_message(self, client: Client, message: ToController) -> None:
        try:
            if client.part == "egress" and client.proxy is not None:
                self._from_egress(client.proxy, message)
            elif client.proxy is not None:
                self._from_proxy(client.proxy, message)
            else:
                self._from_api(client, message)
        except Exception:
            # One message that cannot be served leaves the others their controller.
            log.exception("a message could not be served", part=client.part, kind=type(message).__name__)

    def _from_proxy(self, proxy: ProxyKey, message: ToController) -> None:
        now = time.monotonic()
        match message:
            case Ask():
                self._desk.ask(proxy, message, now)
                self._pump_soon(REFILL_AFTER)
            case Ack():
                self._fleet.ack(proxy, message.seq)
            case Report():
                self._report(proxy, message, now)
            case Finished() | Named() | Replace() | Suspect():
                sandbox = self._fleet.sandboxes.get(message.sandbox_id)
                if sandbox is None or sandbox.phase not in {"assigned", "draining"}:
                    return
                if isinstance(message, Finished):
                    self._desk.finished(sandbox, proxy, now)
                elif isinstance(message, Named):
                    sandbox.named = True
                elif isinstance(message, Replace):
                    self._desk.wishes_to_be_replaced(sandbox, now)
                else:
                    self._suspicion.raised(sandbox, message)
            case _:
                log.warning("a proxy said what is not a proxy's to say", kind=type(message).__name__)

    def _from_egress(self, egress: ProxyKey, message: ToController) -> None:
        match message:
            case Ack():
                self._fleet.ack(egress, message.seq)
            case Noted():
                self._ways.noted(message)
            case _:
                log.warning("egress said what is not egress's to say", kind=type(message).__name__)

    def _report(self, proxy: ProxyKey, report: Report, now: float) -> None:
        for activity in report.activities:
            self._meter.report(activity)
            sandbox = self._fleet.sandboxes.get(activity.sandbox_id)
            if sandbox is None:
                continue
            if activity.in_flight:
                sandbox.in_flight[proxy] = activity.in_flight
            else:
                sandbox.in_flight.pop(proxy, None)
            sandbox.calls += activity.calls
            sandbox.last_call_at = now

    def _from_api(self, client: Client, message: ToController) -> None:
        now = time.monotonic()
        match message:
            case ListSandboxes():
                for part in infos(self._fleet, self._meter, message, now):
                    client.channel.send(part)
            case AskStatus():
                client.channel.send(
                    status(
                        self._desk, self._memory.measure(), message.seq,
                        proxies=self._clients.proxies, uptime=now - self._began, now=now,
                    )
                )  # fmt: skip
            case TenantChanged() if client.part in {"api", "cli"}:
                for error in self._desk.tenant_changed(message.tenant, now):
                    log.error("limits could not be changed", tenant=message.tenant.name, error=error.message)
                client.channel.send(Done(seq=message.seq))
                self._pump_soon()
            case TenantRemoved() if client.part in {"api", "cli"}:
                self._meter.disown(message.name, now)
                self._desk.tenant_removed(message.name, now)
                client.channel.send(Done(seq=message.seq))
                self._pump_soon()
            case Engines() if client.part in {"api", "cli"}:
                self._desk.engines_told(message.engines, message.alone)
                self._pump_soon()
            case UsageTaken() if client.part == "api":
                if self._meter.ledger.taken(message.batch):
                    self._tell_usage()
            case _:
                log.warning("a client said what is not its to say", part=client.part, kind=type(message).__name__)

    # --- the supervisor -----------------------------------------------------------------------------------

    def _to_supervisor(self, message: msgspec.Struct, fds: tuple[int, ...] = ()) -> bool:
        return self._supervisor is not None and self._supervisor.send(message, fds)

    def _greet_supervisor(self, channel: Channel[FromSupervisor]) -> None:
        channel.send(Hello(part="controller", pid=os.getpid()))
        if self._listening:
            channel.send(Ready())
            # After this, when the connector knows the channel.
            self._loop.call_soon(self._fifos.offer)

    def _from_supervisor(self, _channel: Channel[FromSupervisor], message: FromSupervisor, fds: list[int]) -> None:
        close_all(fds)
        match message:
            case Held():
                self._fifos.held(message.sandbox_id)
            case Exited():
                self._maker.exited(message.pid, message.status)
            case Retire():
                self.retire(message.timeout)
            case Reload():
                self.reload()
            case _:
                log.warning("the supervisor said what is not for a controller", kind=type(message).__name__)

    # --- time ---------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        self._pump_timer = None
        if not self._retired.done():
            self._desk.pump(time.monotonic())

    def _pump_soon(self, delay: float = 0.0) -> None:
        """Pump after `delay`, or earlier if that is planned."""
        at = self._loop.time() + delay
        if self._pump_timer is not None:
            if self._pump_at <= at:
                return
            self._pump_timer.cancel()
        # uvloop's handle of what is due at once does not know its time.
        self._pump_at = at
        self._pump_timer = self._loop.call_at(at, self._pump)

    async def _every(self, seconds: float, work: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                work()
            except Exception:
                log.exception("what is due failed; it is tried again when it is due again")

    def _second(self) -> None:
        now = time.monotonic()
        self._desk.tick(now)
        self._meter.prune(now)
        self._ways.second(now)
        for sandbox, hit in self._meter.hits(now):
            self._hits[hit.kind] += hit.times
            text = hit.text + (f", {hit.times} times" if hit.times > 1 else "")
            self._telling.noted(sandbox, text)
            self._clients.tell(None, Hit(sandbox_id=sandbox.sandbox_id, text=hit.text))
        shown = figures.figures(
            self._desk, self._memory.measure(), self._start_seconds, self._ways,
            proxies=self._clients.proxies, lost_usage=self._meter.ledger.lost, hits=self._hits, now=now,
        )  # fmt: skip
        with contextlib.suppress(FileNotFoundError):
            figures_file.write(self._host.metrics_dir, shown)

    def _measure(self) -> None:
        self._meter.step(time.monotonic())

    def _flush(self) -> None:
        self._tell_usage()
        if self._meter.ledger.changed:
            self._disk.write_usage(self._meter.ledger.snapshot())

    def _tell_usage(self) -> None:
        batch = self._meter.ledger.batch()
        if batch is None:
            return
        # On disk under its name first, so that a batch told twice is told under one name.
        if self._meter.ledger.changed:
            self._disk.write_usage(self._meter.ledger.snapshot())
        self._clients.tell_api(batch)


def _policy(host: Host) -> Policy:
    return Policy(
        image=host.image, engine=host.engine, defaults=host.defaults, pool_size=host.pool_size,
        parallel_starts=host.parallel_starts, queue=host.queue,
    )  # fmt: skip

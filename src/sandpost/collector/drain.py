"""Drains the FIFOs of all sandboxes into their spools, and follows whose they are and when they end.

One read of a stream a turn of the event loop, so that tenants take turns; a busy stream rests between its reads, so
that many lines cost little more than one. A tenant that has used up what is read of him is not watched until he has
something again, so that his flood waits in his own FIFOs and costs nobody a cycle. Timers run only while something is
unfinished: silent sandboxes cost nothing.
"""

import asyncio
import time
from typing import TYPE_CHECKING

from sandpost.bus.contract import Writer
from sandpost.collector.budget import READ_COST, rest_after
from sandpost.collector.digest import CHUNK, PATIENCE, Digest
from sandpost.collector.spool import SpoolFullError
from sandpost.collector.streams import STREAMS, Sandbox, Stream, Tenancy
from sandpost.kernel.descriptors import close_all
from sandpost.logs.setup import get_logger
from sandpost.logs.text import safe_text

if TYPE_CHECKING:
    from collections.abc import Callable

_RESUME = 128 * 1024
_LEAST = 4096
"""Bytes that a spool must have room for to be written to."""
_TICK = 0.25
HOLD = 1.0
"""Seconds that output of a sandbox without a tenant waits in its FIFO: the news of its assignment may be late."""
HOLD_ALONE = 20.0
"""Seconds without a controller for which it waits all the same: nobody can say whose it is."""
FINISH = 1.0
"""Seconds for reading what a sandbox left."""
MAX_LEAVING = 1000
"""Sandboxes that are gone and wait for the bus; of those that are too many the oldest lose what is left."""
_LOST_RELEASE = 5.0
_MAX_END_DELAY = 32.0
_FORGET_TENANT = 10.0

log = get_logger()


class Drain:
    """Owner of all streams. Lives in one event loop; only `run` and `close` wait."""

    def __init__(self, writer: Writer, folder: str, *, rate: int, spool: int, hostname: str, pid: int) -> None:
        self._rate = rate
        self.on_room: Callable[[], None] = lambda: None
        """Called when the bus has room again."""
        self._loop = asyncio.get_running_loop()
        self._sandboxes: dict[str, Sandbox] = {}
        self._leaving: dict[str, Sandbox] = {}
        self._owners: dict[str, str] = {}
        self._tenancies: dict[str, Tenancy] = {}
        self._digest = Digest(
            writer, folder, most=spool, hostname=hostname, pid=pid,
            need_tick=self._need_tick, on_room=self._refill, on_done=self._leave,
        )  # fmt: skip
        self.counts = self._digest.counts
        self.bus_room = self._digest.bus_room
        self._alone_since = self._loop.time()
        self._told_since: float | None = None
        """Since when a controller has told of all sandboxes whose they are; None: none is there."""
        self.supervisor_came = False
        """Whether there has been a supervisor, who gives all streams that there are."""
        # Unfinished things, each with the moment it began or is due.
        self._held: dict[Stream, float] = {}
        self._full: dict[Stream, float] = {}
        self._ends: dict[Stream, float] = {}
        self._finishing: set[Sandbox] = set()
        self._tick_timer: asyncio.TimerHandle | None = None
        self._digest.find(self._found)

    @property
    def problem(self) -> str:
        """Why records are not kept now; empty if nothing is wrong."""
        return self._digest.problem

    async def run(self) -> None:
        """Bring records to the bus until cancelled."""
        await self._digest.run()

    async def close(self) -> None:
        """Bring to the bus what it takes, close all. The rest stays in spools and FIFOs. `run` has ended."""
        for sandbox in self._sandboxes.values():
            for stream in sandbox.streams:
                self._forget(stream)
                stream.close()
        await self._digest.close()
        if self._tick_timer is not None:
            self._tick_timer.cancel()

    # --- what the supervisor says ---------------------------------------------------------------------------

    def take(self, sandbox_id: str, fds: list[int]) -> None:
        """Drain these read ends, which become ours, from now on; for a known sandbox they replace the old ones."""
        if len(fds) != STREAMS or sandbox_id in self._leaving:
            log.error("streams that cannot be drained", sandbox_id=sandbox_id, descriptors=len(fds))
            close_all(fds)
            return
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            sandbox = self._sandboxes[sandbox_id] = Sandbox(sandbox_id)
            owner = self._owners.get(sandbox_id)
            if owner is not None:
                self._own(sandbox, owner)
        for stream, fd in zip(sandbox.streams, fds, strict=True):
            self._forget(stream)
            stream.attach(fd)
            self._watch(stream)

    def release(self, sandbox_id: str) -> None:
        """The sandbox is gone: read what it left, write it, close."""
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            self._owners.pop(sandbox_id, None)
            return
        if sandbox.finish_by is None:
            sandbox.finish_by = time.monotonic() + FINISH
        self._finishing.add(sandbox)
        for stream in sandbox.streams:
            if stream in self._ends:
                # It may have had another writer since.
                self._watch(stream)
        self._need_tick()

    # --- what the controller says ---------------------------------------------------------------------------

    def assign(self, sandbox_id: str, tenant: str, rate: int | None = None) -> None:
        """What the sandbox wrote and writes belongs to `tenant`. The first word counts: there is no second.

        `rate`: bytes a second that are kept of this tenant from now on; None: as the host says.
        """
        owner = self._owners.setdefault(sandbox_id, tenant)
        if owner != tenant:
            log.error("sandbox assigned to a second tenant", sandbox_id=sandbox_id, tenant=owner, refused=tenant)
            return
        self._set_own_rate(tenant, rate)
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is not None and sandbox.tenancy is None:
            self._own(sandbox, tenant)
            for stream in sandbox.streams:
                if stream in self._held:
                    self._watch(stream)

    def gone(self, sandbox_id: str) -> None:
        """The sandbox has ended; its `release` follows, or was lost with a supervisor."""
        self._loop.call_later(_LOST_RELEASE, self.release, sandbox_id)

    def compare(self, alive: set[str]) -> None:
        """`alive` is the whole route table: end what is in it no more and has no writer either."""
        for sandbox_id in [known for known in self._owners if known not in alive]:
            sandbox = self._sandboxes.get(sandbox_id)
            # One that is draining has no route, but writers.
            if sandbox is None or (sandbox.attached and sandbox.ended):
                self.release(sandbox_id)
            elif not sandbox.attached:
                self._loop.call_later(_LOST_RELEASE, self._release_unattached, sandbox_id)
        self._told_since = self._loop.time()

    def left_alone(self) -> None:
        """The controller has gone; `compare` follows when there is one again."""
        self._told_since, self._alone_since = None, self._loop.time()

    def lose(self, stream: str, lines: int) -> None:
        """Count lines of a stream that never were a sandbox's; their loss is told there."""
        self._digest.notices.lose(self._tenancy(stream), lines, time.monotonic())

    # --- what the process says ------------------------------------------------------------------------------

    @property
    def sandboxes(self) -> int:
        """Sandboxes whose streams are drained."""
        return sum(1 for sandbox in self._sandboxes.values() if sandbox.attached)

    @property
    def spooled(self) -> int:
        """Bytes that all spools take."""
        return self._digest.used

    def set_rate(self, rate: int) -> None:
        """Keep `rate` bytes a second, from now on, of each tenant that has no rate of its own; 0: all."""
        self._rate = rate
        now = time.monotonic()
        for tenancy in self._tenancies.values():
            if not tenancy.own_rate:
                tenancy.set_rate(rate, now)

    def set_spool(self, most: int) -> None:
        """Let all spools together take `most` bytes from now on."""
        self._digest.most = most

    def forget_tenants(self) -> None:
        """Drop what is known of tenants that have had no sandbox for a while."""
        now = time.monotonic()
        for tenancy in list(self._tenancies.values()):
            idle = not tenancy.sandboxes and not self._digest.notices.is_busy(tenancy)
            if idle and now - tenancy.used_at > _FORGET_TENANT:
                del self._tenancies[tenancy.tenant]

    # --- reading --------------------------------------------------------------------------------------------

    def _readable(self, stream: Stream) -> None:
        tenancy = stream.sandbox.tenancy
        now = time.monotonic()
        if tenancy is None:
            self._loop.remove_reader(stream.fd)
            self._held[stream] = now
            self._need_tick()
            return
        if not tenancy.read.is_open(now):
            self._pause(stream, tenancy)
            return
        room = self._digest.room(stream)
        if room < _LEAST:
            self._digest.make_room(stream, now)
            room = self._digest.room(stream)
        moved = self._move(stream, tenancy, room) if room >= _LEAST else -1
        if moved is not None and moved < 0:
            self._fill(stream, now)
            return
        self._full.pop(stream, None)
        if moved is None:
            return
        if not moved:
            self._end(stream, now)
            return
        stream.end_delay = 1.0
        rest = rest_after(moved, now - stream.taken_at)
        stream.taken_at = now
        if rest:
            self._loop.remove_reader(stream.fd)
            stream.rest = self._loop.call_later(rest, self._watch, stream)
        tenancy.read.spend(max(moved, READ_COST))
        self._digest.work(stream, now)

    def _move(self, stream: Stream, tenancy: Tenancy, room: int) -> int | None:
        """Move bytes from FIFO to spool; return how many, 0 at the end, None if none are there, -1 if it cannot be."""
        try:
            if stream.spool is None:
                self._digest.make(stream, tenancy)
            moved = self._digest.take(stream, min(CHUNK, room))
        except SpoolFullError:
            return -1
        except OSError as error:
            if stream not in self._full:
                log.warning("output cannot be spooled", sandbox_id=stream.sandbox.id, err=error)
            return -1
        self.counts.bytes_read += moved or 0
        return moved

    def _fill(self, stream: Stream, now: float) -> None:
        """There is no room for what the FIFO has."""
        self._loop.remove_reader(stream.fd)
        self._full.setdefault(stream, now)
        self._need_tick()

    def _refill(self) -> None:
        for stream in self._full:
            if self._digest.room(stream) >= CHUNK:
                self._watch(stream)
        self.on_room()

    # --- watching -------------------------------------------------------------------------------------------

    def _watch(self, stream: Stream) -> None:
        """Look again for what comes; a stream that has no FIFO has nothing."""
        if stream.fd < 0:
            return
        self._awake(stream)
        self._held.pop(stream, None)
        self._ends.pop(stream, None)
        stream.ended = False
        self._loop.add_reader(stream.fd, self._readable, stream)

    def _awake(self, stream: Stream) -> None:
        """It is looked at, or let go: it rests no more."""
        if stream.rest is not None:
            stream.rest.cancel()
            stream.rest = None

    def _pause(self, stream: Stream, tenancy: Tenancy) -> None:
        self._loop.remove_reader(stream.fd)
        if not tenancy.paused:
            self._loop.call_later(max(0.005, tenancy.read.wait(_RESUME)), self._resume, tenancy)
        tenancy.paused.append(stream)

    def _resume(self, tenancy: Tenancy) -> None:
        paused, tenancy.paused = tenancy.paused, []
        for stream in paused:
            self._watch(stream)

    def _end(self, stream: Stream, now: float) -> None:
        # Without a writer the FIFO would be reported readable for ever. A new writer is possible: a process
        # inside can open another's descriptor anew; so it is looked at again, ever more seldom.
        self._loop.remove_reader(stream.fd)
        stream.ended = True
        self._ends[stream] = now + stream.end_delay
        stream.end_delay = min(stream.end_delay * 2, _MAX_END_DELAY)
        if stream.sandbox in self._finishing and stream.sandbox.ended:
            self._finish(stream.sandbox, now)
        else:
            self._need_tick()

    def _forget(self, stream: Stream) -> None:
        self._awake(stream)
        if stream.fd >= 0:
            self._loop.remove_reader(stream.fd)
        for unfinished in (self._held, self._full, self._ends):
            unfinished.pop(stream, None)
        tenancy = stream.sandbox.tenancy
        if tenancy is not None and stream in tenancy.paused:
            tenancy.paused.remove(stream)

    # --- whose they are -------------------------------------------------------------------------------------

    def _found(self, sandbox_id: str, tenant: str) -> Sandbox:
        """Return the sandbox of a spool that was left: its FIFOs are given again, if it lives."""
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            sandbox = self._sandboxes[sandbox_id] = Sandbox(sandbox_id)
            self._owners[sandbox_id] = tenant
            self._own(sandbox, tenant)
        return sandbox

    def _own(self, sandbox: Sandbox, tenant: str) -> None:
        tenancy = self._tenancy(tenant)
        tenancy.sandboxes.add(sandbox.id)
        sandbox.tenancy = tenancy

    def _tenancy(self, tenant: str) -> Tenancy:
        tenancy = self._tenancies.get(tenant)
        if tenancy is None:
            tenancy = self._tenancies[tenant] = Tenancy(tenant, self._rate, time.monotonic())
        return tenancy

    def _set_own_rate(self, tenant: str, rate: int | None) -> None:
        if rate is None:
            return
        tenancy = self._tenancy(tenant)
        tenancy.own_rate = True
        # A bucket that is made anew is full: only a change does that.
        if tenancy.keep.rate != rate:
            tenancy.set_rate(rate, time.monotonic())

    # --- what is unfinished ---------------------------------------------------------------------------------

    def _need_tick(self) -> None:
        if self._tick_timer is None:
            self._tick_timer = self._loop.call_later(_TICK, self._tick)

    def _tick(self) -> None:
        self._tick_timer = None
        now = time.monotonic()
        unfinished = self._digest.tick(now)
        if self._is_told():
            for stream in [s for s, since in self._held.items() if now - since >= HOLD]:
                self._drop_unassigned(stream)
        for stream, since in list(self._full.items()):
            self._look_for_room(stream, since, now)
        for stream in [s for s, due in self._ends.items() if now >= due and s.sandbox not in self._finishing]:
            self._watch(stream)
        for sandbox in list(self._finishing):
            if sandbox.ended or now >= (sandbox.finish_by or 0):
                self._finish(sandbox, now)
        if unfinished or self._held or self._full or self._ends or self._finishing:
            self._need_tick()

    def _is_told(self) -> bool:
        """Whether a sandbox of which nobody has said whose it is can be taken for nobody's."""
        now = self._loop.time()
        if self._told_since is None:
            return now - self._alone_since >= HOLD_ALONE
        return now - self._told_since >= HOLD

    def _drop_unassigned(self, stream: Stream) -> None:
        data = stream.read(CHUNK)
        if data:
            self._skip_unassigned(stream, data)
        self._held.pop(stream)
        if data == b"":
            self._end(stream, time.monotonic())
        else:
            self._watch(stream)

    def _skip_unassigned(self, stream: Stream, data: bytes) -> None:
        self.counts.unassigned += stream.decoder.skip(data)
        # What a runtime says that cannot start: nobody's, so the operator reads it.
        log.warning("output of an unassigned sandbox", sandbox_id=stream.sandbox.id, text=safe_text(data[:1024]))

    def _look_for_room(self, stream: Stream, since: float, now: float) -> None:
        self._digest.make_room(stream, now)
        if self._digest.room(stream) >= CHUNK:
            # It stays here until something was moved: the file system may have less room than we.
            self._watch(stream)
        if now - since >= 2 * PATIENCE and not stream.undone and not stream.in_flight:
            # Not the bus is in the way, but where spools lie. A line is lost rather than a writer held up.
            self._digest.pass_by(stream, stream.read(CHUNK) or b"", now)

    def _release_unattached(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or sandbox.attached:
            return
        if self.supervisor_came:
            self.release(sandbox_id)
        else:
            self._loop.call_later(_LOST_RELEASE, self._release_unattached, sandbox_id)

    def _finish(self, sandbox: Sandbox, now: float) -> None:
        self._finishing.discard(sandbox)
        tenancy = sandbox.tenancy
        for stream in sandbox.streams:
            if not stream.ended:
                if tenancy is None:
                    if data := stream.read(CHUNK):
                        self._skip_unassigned(stream, data)
                elif (self._move(stream, tenancy, CHUNK) or 0) < 0:
                    self._digest.pass_by(stream, stream.read(CHUNK) or b"", now)
            self._forget(stream)
            stream.close()
        del self._sandboxes[sandbox.id]
        self._leaving[sandbox.id] = sandbox
        self._digest.finish(sandbox)
        while len(self._leaving) > MAX_LEAVING:
            self._digest.abandon(next(iter(self._leaving.values())))

    def _leave(self, sandbox: Sandbox) -> None:
        """The bus has all of a sandbox that is gone."""
        self._leaving.pop(sandbox.id, None)
        self._owners.pop(sandbox.id, None)
        if sandbox.tenancy is not None:
            sandbox.tenancy.sandboxes.discard(sandbox.id)
            sandbox.tenancy.used_at = time.monotonic()

"""Drains the FIFOs of all sandboxes into records, within what each tenant may write.

One read of a stream a turn of the event loop, so that tenants take turns; a tenant that has used up what is read of
him is not watched until he has something again, so that his flood waits in his own FIFOs and costs nobody a
cycle. Timers run only while something is unfinished: silent sandboxes cost nothing.
"""

import asyncio
import time
from dataclasses import dataclass

from sandpost.collector.budget import READ_COST, RECORD_COST
from sandpost.collector.streams import STREAMS, Sandbox, Stream, Tenancy
from sandpost.kernel.descriptors import close_all
from sandpost.logs import records
from sandpost.logs.contract import Sink
from sandpost.logs.said import Said
from sandpost.logs.setup import get_logger
from sandpost.logs.text import safe_text

CHUNK = 64 * 1024
"""Bytes of a read: what a FIFO holds."""
_SLICE = 8 * 1024
_RESUME = 128 * 1024
_TICK = 0.25
_FLUSH = 0.05
_FLUSH_BYTES = 1 << 20
PARTIAL = 1.0
"""Seconds after which an unfinished record is written as it is."""
HOLD = 1.0
"""Seconds that output of a sandbox without a tenant waits in its FIFO: the news of its assignment may be late."""
FINISH = 1.0
"""Seconds for reading what a sandbox left."""
_LOST_RELEASE = 5.0
_MAX_END_DELAY = 32.0
_FORGET_TENANT = 10.0

log = get_logger()


@dataclass(slots=True)
class Counts:
    """Totals since the start."""

    bytes_read: int = 0
    kept: int = 0
    over_rate: int = 0
    unwritten: int = 0
    unassigned: int = 0
    forged: int = 0


class Drain:
    """Owner of all streams. Lives in one event loop; no method waits."""

    def __init__(self, sink: Sink, *, rate: int, hostname: str, pid: int) -> None:
        self._sink = sink
        self._rate = rate
        self._hostname = hostname
        self._pid = pid
        self._loop = asyncio.get_running_loop()
        self._sandboxes: dict[str, Sandbox] = {}
        self._owners: dict[str, str] = {}
        self._tenancies: dict[str, Tenancy] = {}
        self.counts = Counts()
        # Unfinished things, each with the moment it began or is due.
        self._partial: set[Stream] = set()
        self._held: dict[Stream, float] = {}
        self._ends: dict[Stream, float] = {}
        self._finishing: set[Sandbox] = set()
        self._telling: set[Tenancy] = set()
        self._tick_timer: asyncio.TimerHandle | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._unflushed = 0
        self._failing = False

    # --- what the supervisor says ---------------------------------------------------------------------------

    def take(self, sandbox_id: str, fds: list[int]) -> None:
        """Drain these read ends, which become ours, from now on; for a known sandbox they replace the old ones."""
        if len(fds) != STREAMS:
            log.error("streams without their descriptors", sandbox_id=sandbox_id, descriptors=len(fds))
            close_all(fds)
            return
        known = self._sandboxes.get(sandbox_id)
        if known is not None:
            for stream, fd in zip(known.streams, fds, strict=True):
                self._forget(stream)
                stream.close()
                stream.fd = fd
                self._watch(stream)
            return
        sandbox = self._sandboxes[sandbox_id] = Sandbox(sandbox_id, fds)
        owner = self._owners.get(sandbox_id)
        if owner is not None:
            self._own(sandbox, owner)
        for stream in sandbox.streams:
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

    def note(self, sandbox_id: str, tenant: str | None, text: str, level: int) -> None:
        """Tell the sandbox's tenant in his own log.

        `tenant` None: whoever it was assigned to; nobody if that is not known here.
        """
        tenant = tenant or self._owners.get(sandbox_id)
        if tenant is None:
            return
        record = records.notice(
            safe_text(text.encode()), hostname=self._hostname, pid=self._pid, tenant=tenant, at=time.time(),
            level=level, sandbox_id=sandbox_id,
        )  # fmt: skip
        self._append(self._tenancy(tenant), [records.encode(record)])

    def gone(self, sandbox_id: str) -> None:
        """The sandbox has ended; its `release` follows, or was lost with a supervisor."""
        self._loop.call_later(_LOST_RELEASE, self.release, sandbox_id)

    def compare(self, alive: set[str]) -> None:
        """`alive` is the whole route table: end what is in it no more and has no writer either."""
        for sandbox_id in [known for known in self._owners if known not in alive]:
            sandbox = self._sandboxes.get(sandbox_id)
            # One that is draining has no route, but writers.
            if sandbox is None or sandbox.ended:
                self.release(sandbox_id)

    # --- what the process says ------------------------------------------------------------------------------

    @property
    def sandboxes(self) -> int:
        """Sandboxes whose streams are drained."""
        return len(self._sandboxes)

    def set_rate(self, rate: int) -> None:
        """Keep `rate` bytes a second, from now on, of each tenant that has no rate of its own; 0: all."""
        self._rate = rate
        now = time.monotonic()
        for tenancy in self._tenancies.values():
            if not tenancy.own_rate:
                tenancy.set_rate(rate, now)

    def forget_tenants(self) -> None:
        """Drop what is known of tenants that have had no sandbox for a while."""
        now = time.monotonic()
        for tenancy in list(self._tenancies.values()):
            idle = not tenancy.sandboxes and tenancy not in self._telling
            if idle and now - tenancy.used_at > _FORGET_TENANT:
                del self._tenancies[tenancy.tenant]

    def close(self) -> None:
        """Write what is unfinished, tell what was dropped, close all. What is still in the FIFOs stays there."""
        for sandbox in self._sandboxes.values():
            for stream in sandbox.streams:
                self._flush_partial(stream)
                self._forget(stream)
                stream.close()
        self._sandboxes.clear()
        self._finishing.clear()
        self._flush()
        for tenancy in list(self._telling):
            self._tell(tenancy, time.monotonic(), at_once=True)
        for timer in (self._tick_timer, self._flush_timer):
            if timer is not None:
                timer.cancel()
        self._sink.close()

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
        data = stream.read(CHUNK)
        if data is None:
            return
        if not data:
            self._end(stream, now)
            return
        stream.end_delay = 1.0
        tenancy.read.spend(max(len(data), READ_COST))
        self._digest(stream, tenancy, data, now)

    def _digest(self, stream: Stream, tenancy: Tenancy, data: bytes, now: float) -> None:
        self.counts.bytes_read += len(data)
        decoder = stream.decoder
        # In slices, so that little is parsed in vain when the budget ends in between.
        for at in range(0, len(data), _SLICE):
            if not tenancy.keep.is_open(now):
                self._over(tenancy, decoder.skip(data[at:]), now)
                break
            self._keep(stream, tenancy, decoder.feed(data[at : at + _SLICE]), now)
        if decoder.forged:
            self.counts.forged += decoder.forged
            decoder.forged = 0
        if not decoder.pending:
            stream.partial_since = None
            self._partial.discard(stream)
        elif stream.partial_since is None:
            stream.partial_since = now
            self._partial.add(stream)
            self._need_tick()

    def _keep(self, stream: Stream, tenancy: Tenancy, said: list[Said], now: float) -> None:
        if not said:
            return
        at = time.time()
        lines: list[bytes] = []
        for one in said:
            if not tenancy.keep.is_open(now):
                self._over(tenancy, len(said) - len(lines), now)
                break
            tenancy.keep.spend(len(one.text) + RECORD_COST)
            record = records.user_record(
                one, hostname=self._hostname, tenant=tenancy.tenant, sandbox_id=stream.sandbox.id, at=at
            )
            lines.append(records.encode(record))
        self._append(tenancy, lines)

    def _append(self, tenancy: Tenancy, lines: list[bytes]) -> None:
        if not lines:
            return
        blob = b"".join(lines)
        self._sink.append(tenancy.tenant, blob, len(lines))
        self.counts.kept += len(lines)
        self._unflushed += len(blob)
        if self._unflushed >= _FLUSH_BYTES:
            self._flush()
        elif self._flush_timer is None:
            self._flush_timer = self._loop.call_later(_FLUSH, self._flush)

    def _over(self, tenancy: Tenancy, lines: int, now: float) -> None:
        self.counts.over_rate += lines
        tenancy.over.add(lines, now)
        self._telling.add(tenancy)
        self._need_tick()

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        if self._unflushed:
            self._unflushed = 0
            self._note_unwritten(self._sink.flush())

    def _note_unwritten(self, lost: dict[str, int]) -> None:
        now = time.monotonic()
        for tenant, lines in lost.items():
            self.counts.unwritten += lines
            self.counts.kept -= lines
            tenancy = self._tenancies.get(tenant)
            if tenancy is not None:
                tenancy.unwritten.add(lines, now)
                self._telling.add(tenancy)
                self._need_tick()
        if bool(lost) != self._failing:
            self._failing = bool(lost)
            if lost:
                log.error("logs of tenants cannot be written: is the disk full?", tenants=len(lost))
            else:
                log.info("logs of tenants are written again")

    # --- watching -------------------------------------------------------------------------------------------

    def _watch(self, stream: Stream) -> None:
        self._held.pop(stream, None)
        self._ends.pop(stream, None)
        stream.ended = False
        self._loop.add_reader(stream.fd, self._readable, stream)

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
        self._loop.remove_reader(stream.fd)
        self._partial.discard(stream)
        self._held.pop(stream, None)
        self._ends.pop(stream, None)
        tenancy = stream.sandbox.tenancy
        if tenancy is not None and stream in tenancy.paused:
            tenancy.paused.remove(stream)

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
        for stream in [s for s in self._partial if now - (s.partial_since or 0) >= PARTIAL]:
            self._flush_partial(stream)
        for stream in [s for s, since in self._held.items() if now - since >= HOLD]:
            self._drop_unassigned(stream)
        for stream in [s for s, due in self._ends.items() if now >= due and s.sandbox not in self._finishing]:
            self._watch(stream)
        for sandbox in list(self._finishing):
            if sandbox.ended or now >= (sandbox.finish_by or 0):
                self._finish(sandbox, now)
        for tenancy in list(self._telling):
            self._tell(tenancy, now)
        if self._partial or self._held or self._ends or self._finishing or self._telling:
            self._need_tick()

    def _flush_partial(self, stream: Stream) -> None:
        self._partial.discard(stream)
        stream.partial_since = None
        said = stream.decoder.flush()
        if stream.sandbox.tenancy is not None:
            self._keep(stream, stream.sandbox.tenancy, said, time.monotonic())

    def _drop_unassigned(self, stream: Stream) -> None:
        data = stream.read(CHUNK)
        if data:
            self.counts.unassigned += stream.decoder.skip(data)
            log.debug("output of an unassigned sandbox", sandbox_id=stream.sandbox.id, text=safe_text(data[:1024]))
        self._held.pop(stream)
        if data == b"":
            self._end(stream, time.monotonic())
        else:
            self._watch(stream)

    def _finish(self, sandbox: Sandbox, now: float) -> None:
        self._finishing.discard(sandbox)
        tenancy = sandbox.tenancy
        for stream in sandbox.streams:
            self._flush_partial(stream)
            left = None if stream.ended else stream.read(CHUNK)
            if left:
                lines = stream.decoder.skip(left)
                if tenancy is None:
                    self.counts.unassigned += lines
                else:
                    self._over(tenancy, lines, now)
            self._forget(stream)
            stream.close()
        del self._sandboxes[sandbox.id]
        self._owners.pop(sandbox.id, None)
        if tenancy is not None:
            tenancy.sandboxes.discard(sandbox.id)
            tenancy.used_at = now

    def _tell(self, tenancy: Tenancy, now: float, *, at_once: bool = False) -> None:
        for drops in (tenancy.over, tenancy.unwritten):
            if not drops.due(now) and not (at_once and drops.lines):
                continue
            record = records.notice(
                drops.sentence(), hostname=self._hostname, pid=self._pid, tenant=tenancy.tenant, at=time.time()
            )
            # Written before it is forgotten: a disk that is full now will have room later.
            self._flush()
            self._sink.append(tenancy.tenant, records.encode(record), 1)
            lost = self._sink.flush()
            if not lost:
                drops.clear()
        if not tenancy.over.lines and not tenancy.unwritten.lines:
            self._telling.discard(tenancy)

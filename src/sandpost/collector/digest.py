"""Makes records of what is in the spools and brings them to the bus, each once, within what each tenant may write.

For every stream three positions follow one another: `mark.kept` (the bus has it), `fed` (the decoder has it) and the
spool's length. Where the bus has no room, and at a start, the decoder goes back to where the next record begins; what
was dropped is in the mark by then, and is passed over.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping

from sandpost.bus.contract import MAX_BATCH, Batch, Writer
from sandpost.collector import spool as spools
from sandpost.collector.budget import RECORD_COST
from sandpost.collector.counts import Counts
from sandpost.collector.mark import LOST, OVER, REASONS
from sandpost.collector.notices import LEAST_ROOM, LOST_REASON, Notices
from sandpost.collector.spool import Spool
from sandpost.collector.streams import Sandbox, Stream, Tenancy
from sandpost.logs import bunyan, records
from sandpost.logs.said import Said
from sandpost.logs.setup import get_logger
from sandpost.model.errors import BusError

CHUNK = 64 * 1024
"""Bytes of a stream that are looked at in one turn."""
SHARE = 32
"""Of what all spools may hold together, one stream's may hold this part."""
PARTIAL = 1.0
"""Seconds after which an unfinished record is written as it is."""
PATIENCE = 2.0
"""Seconds for which a full spool waits for a bus that takes nothing; then lines are lost."""
_SLICE = 8 * 1024
_BATCH = 256 * 1024
_ROOM = MAX_BATCH
"""Bytes that the bus must have room for: more than `_BATCH` and one more record, 200 KiB at most."""
_TRIM = 64 * 1024
_MOST_GRANTED = 60.0
"""Seconds of a tenant's rate that are made up for after the bus took nothing."""
_BACKLOG = 10.0
"""The same at most for what a former process left."""
_COST = 8
"""What a byte of it may cost as a record: lines of some 20 bytes."""
_RETRY = 1.0
_NOTE_EVERY = 1.0

log = get_logger()


class Digest:
    """Owner of all spools and of the way to the bus. `run` and `close` wait, nothing else does.

    `need_tick`: call `tick` within a quarter of a second. `on_room`: spools have got room. `on_done`: the bus has all
    of a sandbox that was finished.
    """

    def __init__(
        self,
        writer: Writer,
        folder: str,
        *,
        most: int,
        hostname: str,
        pid: int,
        need_tick: Callable[[], None],
        on_room: Callable[[], None],
        on_done: Callable[[Sandbox], None],
    ) -> None:
        self._writer = writer
        self._folder = folder
        self.most = most
        """Bytes that all spools may take."""
        self._hostname = hostname
        self._need_tick, self._on_room, self._on_done = need_tick, on_room, on_done
        self._loop = asyncio.get_running_loop()
        self.counts = Counts()
        self.notices = Notices(
            writer, counts=self.counts, hostname=hostname, pid=pid, room=self.bus_room, need_tick=need_tick
        )  # fmt: skip
        self.used = 0
        """Bytes that all spools take."""
        # Streams that have a spool, by their names as sources.
        self._streams: dict[str, Stream] = {}
        self._open = False
        self._failing = ""
        # Up to where all of a stream of the bus stands in marks: as a former process noted it, and for the next one.
        self._since: Mapping[str, int] = {}
        self._reached: dict[str, int] = {}
        self._noting: asyncio.TimerHandle | None = None
        # Unfinished things.
        self._unready: set[Stream] = set()
        self._stalled: dict[Stream, None] = {}
        self._partial: set[Stream] = set()
        self._telling: set[Stream] = set()

    @property
    def problem(self) -> str:
        """Why the bus does not keep all that it was given, or cannot be opened; empty if nothing is wrong."""
        return self._writer.problem or ("" if self._open else self._failing)

    # --- the bus --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Bring records to the bus until cancelled. Whatever fails is tried again."""
        while not self._open:
            try:
                await self._writer.open()
            except BusError as error:
                self._fail(str(error))
                await asyncio.sleep(_RETRY)
            else:
                self._open = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recover_all())
            group.create_task(self._take_kept())
            self._go_on()

    async def close(self) -> None:
        """Bring to the bus what it takes within its time; the rest stays in the spools. `run` has ended."""
        now = time.monotonic()
        for stream in list(self._streams.values()):
            if stream.again is not None:
                stream.again.cancel()
            # In as many turns as it takes, whoever else waits.
            before = -1
            while self._open and stream.fed != before and stream.undone:
                before = stream.fed
                self.work(stream, now)
            self._flush_partial(stream, now)
            self._tell(stream, now, at_once=True)
        await self._writer.close()
        with contextlib.suppress(BusError):
            while self._open:
                kept = await self._writer.kept()
                self._note_kept(kept, self._writer.reached())
        if self._noting is not None:
            self._noting.cancel()
            self._note_reached()
        for stream in self._streams.values():
            if stream.again is not None:
                stream.again.cancel()
            if stream.spool is not None:
                stream.spool.close()
        self._streams.clear()

    async def _recover_all(self) -> None:
        while self._unready:
            asked = [stream for stream in self._unready if stream.sandbox.tenancy is not None]
            sources = {
                name: stream.spool.mark.tenant
                for stream in asked
                if stream.spool is not None
                for name in (stream.source, *(f"{stream.source}.{reason}" for reason in REASONS))
            }
            try:
                found = await self._writer.positions(sources, self._since)
            except BusError as error:
                self._fail(str(error))
                await asyncio.sleep(_RETRY)
                continue
            now = time.monotonic()
            for stream in asked:
                self._recover(stream, found, now)

    async def _take_kept(self) -> None:
        while True:
            try:
                kept = await self._writer.kept()
            except BusError as error:
                self._fail(str(error))
                continue
            self._note_kept(kept, self._writer.reached())
            if self._failing and not self._writer.problem:
                self._failing = ""
                log.info("logs of tenants are written again")

    def _fail(self, problem: str) -> None:
        if problem != self._failing:
            self._failing = problem
            log.error("logs of tenants cannot be written", problem=problem)

    def _note_kept(self, kept: Mapping[str, int], reached: Mapping[str, int]) -> None:
        for source, end in kept.items():
            stream = self._streams.get(source)
            if stream is not None:
                self._note_end(stream, end)
                continue
            name, _, reason = source.rpartition(".")
            stream = self._streams.get(name)
            if stream is not None and stream.spool is not None and reason in REASONS:
                told = stream.spool.mark.told
                told[REASONS.index(reason)] = max(told[REASONS.index(reason)], end)
                stream.spool.save()
                self._leave_if_done(stream)
        # After the marks: they may know more, never less.
        self._reached |= reached
        if self._noting is None:
            self._noting = self._loop.call_later(_NOTE_EVERY, self._note_reached)
        self._go_on()

    def _note_reached(self) -> None:
        self._noting = None
        if self._unready:
            # Their marks do not say yet how far they came.
            return
        with contextlib.suppress(OSError):
            spools.write_reached(self._folder, self._reached)

    def _note_end(self, stream: Stream, end: int) -> None:
        spool = stream.spool
        if spool is None:
            return
        spool.mark.keep(end)
        self._settle(stream)
        spool.save()
        if spool.mark.kept - stream.freed >= _TRIM:
            self._trim(stream)
        self._leave_if_done(stream)

    def _settle(self, stream: Stream) -> None:
        """With nothing on its way, all before the decoder's end is on the bus or dropped."""
        if stream.spool is not None and not stream.in_flight:
            stream.spool.mark.settle(stream.decoder.end, torn=stream.decoder.torn)

    def _go_on(self) -> None:
        """The bus has room again, or may have."""
        now = time.monotonic()
        for stream in list(self._stalled):
            if self._has_room(stream):
                self.work(stream, now)
        self._on_room()

    def bus_room(self, stream: str) -> int:
        """Return the bytes that the bus takes of a stream now."""
        return self._writer.room(stream) if self._open else 0

    def _has_room(self, stream: Stream) -> bool:
        spool = stream.spool
        return (
            spool is not None
            and self.bus_room(spool.mark.tenant) >= _ROOM
            and not spool.mark.full
            # Of a full spool something can be dropped always.
            and stream.fed - spool.mark.kept <= self._stream_most() // 2
        )

    # --- spools ---------------------------------------------------------------------------------------------

    def find(self, sandboxes: Callable[[str, str], Sandbox]) -> None:
        """Take over what a former process left; `sandboxes` returns the sandbox of an id, whose tenant is known."""
        try:
            left = spools.left(self._folder)
        except OSError as error:
            log.warning("spools cannot be read", folder=self._folder, err=error)
            return
        self._since = spools.read_reached(self._folder)
        self._reached = dict(self._since)
        for sandbox_id, number in left:
            try:
                spool = Spool.find(spools.path_of(self._folder, sandbox_id, number))
            except OSError as error:
                log.warning("a spool cannot be read", sandbox_id=sandbox_id, err=error)
                continue
            if spool is not None:
                stream = sandboxes(sandbox_id, spool.mark.tenant).streams[number]
                self._take_over(stream, spool)

    def make(self, stream: Stream, tenancy: Tenancy) -> None:
        """Make the spool of a stream that says something for the first time. Raises `SpoolFullError`, `OSError`."""
        path = spools.path_of(self._folder, stream.sandbox.id, stream.number)
        spool = Spool.make(path, tenancy.tenant)
        # What it said before it was anybody's was dropped, perhaps in the middle of a line.
        stream.begin(0, torn=stream.decoder.torn)
        if stream.decoder.torn:
            spool.mark.torn = True
            spool.save()
        stream.spool = spool
        self._streams[stream.source] = stream
        self._count(stream)

    def room(self, stream: Stream) -> int:
        """Return the bytes that may be put into a stream's spool."""
        return min(self._stream_most() - stream.counted, self.most - self.used)

    def _stream_most(self) -> int:
        return self.most // SHARE

    def take(self, stream: Stream, most: int) -> int | None:
        """Move bytes from a stream's FIFO to its spool, as `Spool.take`."""
        if stream.spool is None:
            return None
        moved = stream.spool.take(stream.fd, most)
        self._count(stream)
        if moved:
            stream.passing = None
        return moved

    def make_room(self, stream: Stream, now: float) -> None:
        """Lose the oldest of what waits for a bus that has long taken nothing, so that a full spool can go on."""
        victim = stream
        if self.used + CHUNK > self.most:
            waiting = [one for one in self._streams.values() if one.stalled_since is not None and one.undone]
            victim = max(waiting, key=lambda one: one.counted, default=stream)
        if victim.stalled_since is not None and now - victim.stalled_since >= PATIENCE and victim.undone:
            self._lose(victim, now)

    def pass_by(self, stream: Stream, data: bytes, now: float) -> None:
        """Lose bytes that were taken out of a FIFO and could not be put into its spool.

        A line of which a part is lost is lost: what comes of it later is left out, so that it is counted once.
        """
        spool, tenancy = stream.spool, stream.sandbox.tenancy
        if not data or tenancy is None:
            return
        if spool is None:
            self.notices.lose(tenancy, stream.decoder.skip(data), now)
            return
        is_next = stream.ready and not stream.undone
        if is_next and stream.decoder.pending:
            self._flush_partial(stream, now)
            begin = stream.decoder.end
            self._drop(stream, LOST, begin, _lines(stream.decoder.flush()), now)
            self._note_partial(stream, now)
        if stream.passing is None:
            stream.passing = stream.counter(torn=is_next and stream.decoder.torn)
        self.notices.lose(tenancy, stream.passing.skip(data), now)
        if is_next:
            stream.begin(spool.length, torn=stream.passing.torn)
            if not stream.in_flight:
                spool.mark.torn = stream.passing.torn
                spool.save()

    def finish(self, sandbox: Sandbox) -> None:
        """Nothing more comes of this sandbox. `on_done` is called when the bus has all of it, perhaps at once."""
        sandbox.finished = True
        now = time.monotonic()
        for stream in sandbox.streams:
            if stream.spool is not None:
                self.work(stream, now)
                self._end_of(stream, now)
        self._done_if(sandbox)

    def abandon(self, sandbox: Sandbox) -> None:
        """Give up what the bus has not taken of a finished sandbox."""
        now = time.monotonic()
        tenancy = sandbox.tenancy
        for stream in sandbox.streams:
            if stream.spool is None:
                continue
            if not stream.ready:
                # Nobody will be asked any more what of it the bus has: all beyond the mark counts.
                self._go_back(stream, stream.spool, {}, now)
            before = -1
            while stream.undone > 0 and stream.fed != before:
                before = stream.fed
                self._lose(stream, now)
            if tenancy is not None:
                self.notices.lose(tenancy, sum(drops.lines for drops in stream.drops), now, counted=True)
            self._remove(stream)
        self._done_if(sandbox)

    def _take_over(self, stream: Stream, spool: Spool) -> None:
        stream.spool = spool
        self._streams[stream.source] = stream
        self._count(stream)
        made = spool.mark
        stream.begin(spool.length, torn=False)
        if made.kept < spool.length or made.dropped != made.told:
            # Until the bus can be asked nothing but what comes from now on can be told apart from what it has.
            stream.ready = False
            stream.stalled_since = time.monotonic()
            self._unready.add(stream)
        else:
            stream.begin(made.kept, torn=made.torn)
            stream.appended = made.kept
            stream.telling = list(made.told)

    def _recover(self, stream: Stream, found: Mapping[str, int], now: float) -> None:
        self._unready.discard(stream)
        spool, tenancy = stream.spool, stream.sandbox.tenancy
        if spool is None or tenancy is None:
            return
        left = self._go_back(stream, spool, found, now)
        if left > 0 and tenancy.keep.rate and tenancy.stalled_since is None:
            tenancy.stalled_since = now - min(_BACKLOG, _COST * left / tenancy.keep.rate)
        if any(drops.lines for drops in stream.drops):
            self._telling.add(stream)
            self._need_tick()
        self.work(stream, now)
        self._leave_if_done(stream)

    def _go_back(self, stream: Stream, spool: Spool, found: Mapping[str, int], now: float) -> int:
        """Begin where the bus and the mark say; return the bytes that a former process left."""
        made = spool.mark
        made.keep(found.get(stream.source, 0))
        for reason, name in enumerate(REASONS):
            made.told[reason] = max(made.told[reason], found.get(f"{stream.source}.{name}", 0))
            # What was dropped since the start, while nothing could be asked, is in both.
            untold = made.dropped[reason] - made.told[reason] - stream.drops[reason].lines
            stream.drops[reason].add(untold, now)
        spool.save()
        stream.telling = list(made.told)
        # What came since the start is as fresh as ever.
        left = stream.fed - made.kept - sum(one.end - one.begin for one in made.ranges)
        stream.begin(made.kept, torn=made.torn)
        stream.ahead.extend(made.ranges)
        stream.appended = made.kept
        stream.ready = True
        return left

    def _count(self, stream: Stream) -> None:
        used = stream.spool.used if stream.spool is not None else 0
        self.used += used - stream.counted
        stream.counted = used

    def _trim(self, stream: Stream) -> None:
        if stream.spool is not None:
            stream.freed = stream.spool.free(stream.freed, stream.spool.mark.kept)
            self._count(stream)

    def _lose(self, stream: Stream, now: float) -> None:
        """Drop a quarter of what waits, the oldest."""
        spool = stream.spool
        if spool is None:
            return
        begin, until = stream.decoder.end, stream.fed + max(CHUNK, stream.undone // 4)
        while stream.fed < min(until, spool.length):
            if stream.ahead and stream.fed >= stream.ahead[0].begin:
                cut_off = stream.decoder.end
                self._drop(stream, LOST, cut_off, _lines(stream.decoder.flush()), now)
                self._pass_over(stream)
                continue
            data = spool.read(stream.fed, self._size_at(stream, CHUNK))
            if not data:
                break
            self._skip(stream, LOST, data, now)
        spool.free(begin, stream.decoder.end)
        self._count(stream)

    def _leave_if_done(self, stream: Stream) -> None:
        if stream.sandbox.finished:
            self._end_of(stream, time.monotonic())
            self._done_if(stream.sandbox)

    def _end_of(self, stream: Stream, now: float) -> None:
        """Of a finished sandbox: what ends a stream, and its removal when the bus has all of it."""
        spool = stream.spool
        if spool is None or not stream.ready or stream.undone:
            return
        self._flush_partial(stream, now)
        self._tell(stream, now, at_once=True)
        if not stream.decoder.pending and not stream.in_flight and spool.mark.dropped == spool.mark.told:
            self._remove(stream)

    def _done_if(self, sandbox: Sandbox) -> None:
        if sandbox.finished and all(stream.spool is None for stream in sandbox.streams):
            self._on_done(sandbox)

    def _remove(self, stream: Stream) -> None:
        if stream.spool is not None:
            stream.spool.remove()
            stream.spool = None
        if stream.again is not None:
            stream.again.cancel()
            stream.again = None
        self._streams.pop(stream.source, None)
        self._count(stream)
        for unfinished in (self._unready, self._partial, self._telling):
            unfinished.discard(stream)
        self._stalled.pop(stream, None)

    # --- records --------------------------------------------------------------------------------------------

    def work(self, stream: Stream, now: float) -> None:
        """Make records of what is new in a stream's spool; after a chunk of it others have their turn."""
        spool, tenancy = stream.spool, stream.sandbox.tenancy
        if spool is None or tenancy is None or not stream.ready:
            return
        turn_ends = stream.fed + CHUNK
        while stream.fed < spool.length:
            if not self._has_room(stream):
                self._stall(stream, tenancy, now)
                return
            self._unstall(stream, tenancy, now)
            if stream.ahead and stream.fed >= stream.ahead[0].begin:
                begin = stream.decoder.end
                if self._keep(stream, tenancy, stream.decoder.flush(), begin, now):
                    self._pass_over(stream)
                continue
            if stream.fed >= turn_ends:
                self._work_again(stream)
                return
            is_open = tenancy.keep.is_open(now)
            data = spool.read(stream.fed, self._size_at(stream, _SLICE if is_open else CHUNK))
            if not data:
                # Somebody cut the file.
                break
            if is_open:
                begin = stream.decoder.end
                stream.fed += len(data)
                self._keep(stream, tenancy, stream.decoder.feed(data), begin, now)
            else:
                self._skip(stream, OVER, data, now)
        self._settle(stream)
        self._note_partial(stream, now)

    def _size_at(self, stream: Stream, most: int) -> int:
        """Return how many bytes may be read at a stream's place."""
        return min(most, stream.ahead[0].begin - stream.fed) if stream.ahead else most

    def _pass_over(self, stream: Stream) -> None:
        """Pass over what a former process dropped."""
        dropped = stream.ahead.popleft()
        stream.begin(dropped.end, torn=dropped.torn)

    def _note_partial(self, stream: Stream, now: float) -> None:
        decoder = stream.decoder
        if decoder.forged:
            self.counts.forged += decoder.forged
            decoder.forged = 0
        if not decoder.pending:
            stream.partial_since = None
            self._partial.discard(stream)
        elif stream.partial_since is None or stream.partial_at != decoder.end:
            # Who writes without a pause may end in the middle of a line each time, and each time it is another one.
            stream.partial_since, stream.partial_at = now, decoder.end
            self._partial.add(stream)
            self._need_tick()

    def _work_again(self, stream: Stream) -> None:
        if stream.again is None:
            stream.again = self._loop.call_soon(self._work_now, stream)

    def _work_now(self, stream: Stream) -> None:
        stream.again = None
        self.work(stream, time.monotonic())
        self._leave_if_done(stream)

    def _stall(self, stream: Stream, tenancy: Tenancy, now: float) -> None:
        self._stalled[stream] = None
        if tenancy.stalled_since is None:
            tenancy.stalled_since = now
        if stream.stalled_since is None:
            stream.stalled_since = now

    def _unstall(self, stream: Stream, tenancy: Tenancy, now: float) -> None:
        if stream.stalled_since is None:
            return
        stream.stalled_since = None
        if tenancy.stalled_since is not None:
            # What his rate would have let through meanwhile comes too late by no fault of the tenant's.
            tenancy.keep.grant(min(_MOST_GRANTED, now - tenancy.stalled_since))
            tenancy.stalled_since = None
        self._stalled.pop(stream, None)

    def _keep(self, stream: Stream, tenancy: Tenancy, said: list[Said], begin: int, now: float) -> bool:
        """Hand records to the bus, those beyond the rate dropped; `begin`: where the first one begins.

        False if the bus had no room for all: the stream is behind the last one that it took.
        """
        if not said:
            return True
        at = time.time()
        stamp = bunyan.timestamp(at)
        sandbox, keep = stream.sandbox, tenancy.keep
        if sandbox.scribe is None:
            sandbox.scribe = records.Scribe(
                hostname=self._hostname, tenant=tenancy.tenant, sandbox_id=sandbox.id
            )  # fmt: skip
        line_of, raw = sandbox.scribe.line, stream.raw
        lines: list[bytes] = []
        size = 0
        for number, one in enumerate(said):
            if not keep.is_open(now):
                self._hand_over(stream, tenancy, lines, begin, at)
                self._drop(stream, OVER, begin, _lines(said[number:]), now, end=said[-1].end)
                return True
            keep.spend(len(one.text) + RECORD_COST)
            line = line_of(one, stamp, raw=raw)
            lines.append(line)
            size += len(line)
            begin = one.end
            if size >= _BATCH:
                self._hand_over(stream, tenancy, lines, begin, at)
                lines, size = [], 0
                if one is not said[-1] and not self._has_room(stream):
                    stream.begin(begin, torn=False)
                    return False
        self._hand_over(stream, tenancy, lines, begin, at)
        return True

    def _hand_over(self, stream: Stream, tenancy: Tenancy, lines: list[bytes], end: int, at: float) -> None:
        if not lines:
            return
        batch = Batch(
            stream=tenancy.tenant, source=stream.source, end=end, lines=b"".join(lines), count=len(lines), time=at
        )
        self._writer.append([batch])
        stream.appended = end
        self.counts.kept += len(lines)

    def _skip(self, stream: Stream, reason: int, data: bytes, now: float) -> None:
        begin = stream.decoder.end
        stream.fed += len(data)
        self._drop(stream, reason, begin, stream.decoder.skip(data), now)

    def _drop(self, stream: Stream, reason: int, begin: int, lines: int, now: float, *, end: int | None = None) -> None:
        """Note that what is from `begin` to `end` (None: where the decoder is) was dropped. First the mark: whatever
        happens next, it is so."""
        spool, tenancy = stream.spool, stream.sandbox.tenancy
        if spool is None or tenancy is None:
            return
        decoder = stream.decoder
        if end is None:
            spool.mark.drop(begin, decoder.end, torn=decoder.torn)
        else:
            spool.mark.drop(begin, end, torn=False)
        spool.mark.dropped[reason] += lines
        self._settle(stream)
        spool.save()
        if reason == OVER:
            self.counts.over_rate += lines
        else:
            self.counts.unwritten += lines
        stream.drops[reason].add(lines, now)
        self._telling.add(stream)
        self._need_tick()

    def _flush_partial(self, stream: Stream, now: float) -> None:
        tenancy = stream.sandbox.tenancy
        if tenancy is None or not stream.ready or not stream.decoder.pending or not self._has_room(stream):
            return
        if stream.undone:
            # How it goes on is there.
            return
        begin = stream.decoder.end
        self._keep(stream, tenancy, stream.decoder.flush(), begin, now)
        self._settle(stream)
        self._note_partial(stream, now)

    # --- what is told ---------------------------------------------------------------------------------------

    def tick(self, now: float) -> bool:
        """Do what is due; return whether anything is unfinished."""
        for stream in [one for one in self._partial if now - (one.partial_since or 0) >= PARTIAL]:
            self._flush_partial(stream, now)
            self._leave_if_done(stream)
        for stream in list(self._telling):
            self._tell(stream, now)
        untold = self.notices.tick(now)
        return bool(self._partial or self._telling or untold)

    def _tell(self, stream: Stream, now: float, *, at_once: bool = False) -> None:
        spool, tenancy = stream.spool, stream.sandbox.tenancy
        if spool is None or tenancy is None or not stream.ready:
            return
        for reason, name in enumerate(REASONS):
            drops = stream.drops[reason]
            if not drops.due(now) and not (at_once and drops.lines):
                continue
            if self.bus_room(tenancy.tenant) < LEAST_ROOM:
                continue
            at = time.time()
            text = drops.sentence(tenancy.over_reason if reason == OVER else LOST_REASON)
            stream.telling[reason] += drops.lines
            batch = Batch(
                stream=tenancy.tenant, source=f"{stream.source}.{name}", end=stream.telling[reason],
                lines=self.notices.record(tenancy, text, at, sandbox_id=stream.sandbox.id), count=1, time=at,
            )  # fmt: skip
            self._writer.append([batch])
            drops.clear()
        if not any(drops.lines for drops in stream.drops):
            self._telling.discard(stream)


def _lines(said: Iterable[Said]) -> int:
    """Return how many of the program's lines are lost with these records."""
    return sum(one.lines for one in said)

"""One open stream: reads the bus, writes to its reader, and ends for a reason that it tells.

State stands in groups: what is asked, the way out, where it is, its clock. It runs in the task of its request;
whoever ends it from outside sets the reason and cancels that task.
"""

import asyncio
import contextlib
import time
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.types import Receive, Send

from sandpost.api.logs.asking import Asked, Form
from sandpost.api.logs.filters import Filter
from sandpost.api.logs.frames import PING, End, Scribe
from sandpost.bus.contract import MAX_BATCH, PIECE_BYTES, PIECE_RECORDS, Missing, Record, Start
from sandpost.logs import bunyan
from sandpost.logs.setup import get_logger
from sandpost.model.errors import BusError

if TYPE_CHECKING:
    from sandpost.api.logs.streams import Streams

log = get_logger()

PING_EVERY = 10.0
"""Seconds of silence after which events get a ping; clients count on one in 15."""
_ANSWER_WITHIN = 30.0
"""Seconds that the bus has for each next piece of what was there, where silence is to end the stream: more than any
driver's patience, whose word for what is wrong is the better one."""
_LAST_WORD = 5.0
"""Seconds that a reader has to take the end."""
_GZIP, _WINDOW, _MEMORY, _EFFORT = 16, 13, 6, 4
"""A window of 8 KiB: 64 KiB of memory a stream instead of 268."""


class Stream:
    """One stream of the bus on its way to one reader."""

    def __init__(self, streams: "Streams", name: str, tenant: str | None, asked: Asked, end: int) -> None:
        # What is asked.
        self.name = name
        self.digest: bytes | None = None
        """Of the key that it is read with; None: nobody can take it away."""
        self._streams = streams
        self._asked = asked
        self._wanted = Filter(asked.wanted)
        self._left = asked.most
        self.known = end
        """Behind all records that were there at the beginning, and not behind what comes."""
        # The way out.
        self._scribe = Scribe(tenant, asked.form, streams.hostname, streams.pid)
        self._send: Send | None = None
        self._packer = zlib.compressobj(_EFFORT, zlib.DEFLATED, _GZIP + _WINDOW, _MEMORY) if asked.gzip else None
        self._out = asyncio.Lock()
        self._torn = False
        """Whether something that was packed did not go out: what is packed from then on cannot be read."""
        # Where it is.
        # Now is when the answer begins: what comes between its head and the first look at the bus belongs to it.
        begins_there = asked.start == Start() or (asked.start.offset or 0) > end
        self._start = Start(offset=end) if begins_there else asked.start
        self._sought = (self._start.offset or 0) < end
        """Whether more may come of what was there at the beginning."""
        self._skip = MAX_BATCH if asked.start.since is not None else 0
        """Bytes of records among which those before the time asked for are left out."""
        self._from = "" if asked.start.since is None else bunyan.timestamp(asked.start.since)
        self._in_hand = False
        """Whether a piece came that was not passed on yet."""
        self._task: asyncio.Task[None] | None = None
        self._end: End | None = None
        self._why = ""
        self._gone = False
        # Its clock, in the loop's seconds.
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._last_record = self._loop.time()
        self._last_sent = self._last_record
        self._pinging: asyncio.Task[None] | None = None
        self.active = False
        """Whether anything was sent since `Streams` looked."""

    async def run(self, receive: Receive, send: Send) -> None:
        """Stream until there is an end, or the reader has gone."""
        task = self._task = asyncio.current_task()
        assert task is not None
        self._send = send
        watcher = asyncio.create_task(self._watch(receive), name="reader of logs")
        self._last_record = self._last_sent = self._loop.time()
        self._look()
        try:
            await self._stream()
        except asyncio.CancelledError:
            if self._end is None and not self._gone:
                raise
            task.uncancel()
        except BusError as error:
            self._end, self._why = End.BUS, error.message
        except Exception:
            log.exception("a stream of logs failed", stream=self.name)
            self._end = End.FAILED
        finally:
            if self._timer is not None:
                self._timer.cancel()
            watcher.cancel()
            if self._pinging is not None:
                self._pinging.cancel()
        if not self._gone:
            await self._finish()

    def end(self, why: End) -> None:
        """End it; the first reason counts."""
        if self._end is None and not self._gone and self._task is not None:
            self._end = why
            self._task.cancel()

    # --- records ----------------------------------------------------------------------------------------------

    async def _stream(self) -> None:
        asked = self._asked.start.offset
        if asked is not None and asked > self.known:
            await self._write(self._scribe.behind(asked, self.known, time.time()))
        if not self._asked.follow and not self._sought:
            self._end = End.TOLD
            return
        async with contextlib.aclosing(self._streams.reader.follow(self.name, self._start)) as pieces:
            async for items in pieces:
                if not items:
                    if not self._asked.follow:
                        self._end = End.TOLD
                        return
                    if self._sought:
                        self._found()
                    continue
                self._in_hand = True
                if await self._give(items):
                    return
                self._in_hand = False
                if len(items) < PIECE_RECORDS and sum(_size(one) for one in items) < PIECE_BYTES // 2:
                    await self._streams.pace(self.name)

    async def _give(self, items: Sequence[Record | Missing]) -> bool:
        """Pass a piece on; return whether that was the end."""
        if self._skip:
            items = self._since(items)
        written = await self._streams.write(self.name, self._scribe, self._wanted, items)
        if self._left is not None:
            if written.records > self._left:
                written = self._scribe.piece(items, self._wanted, time.time(), self._left)
            self._left -= written.records
        # While history is looked through, a filter that lets little pass is no silence.
        if written.records or self._sought:
            self._last_record = self._loop.time()
        if written.data:
            await self._write(written.data)
        if self._left == 0:
            self._end = End.MAX
        return self._end is not None

    def _since(self, items: Sequence[Record | Missing]) -> Sequence[Record | Missing]:
        """Leave out what is before the time asked for: the bus begins with a batch, which may have begun before."""
        for number, one in enumerate(items):
            if isinstance(one, Missing):
                continue
            self._skip -= min(self._skip, len(one.line))
            if self._streams.time_of(one.line) >= self._from or not self._skip:
                self._skip = 0
                return items[number:]
        return [one for one in items if isinstance(one, Missing)]

    # --- the reader -------------------------------------------------------------------------------------------

    async def _write(self, data: bytes) -> None:
        await self._put(data)
        self._last_sent = self._loop.time()
        self.active = True

    async def _put(self, data: bytes, *, more: bool = True) -> None:
        assert self._send is not None
        async with self._out:
            if self._packer is not None:
                packed = self._packer.compress(data)
                data = packed + self._packer.flush(zlib.Z_SYNC_FLUSH if more else zlib.Z_FINISH)
                self._torn = True
            await self._send({"type": "http.response.body", "body": data, "more_body": more})
            self._torn = False

    async def _finish(self) -> None:
        """Say why this is all, and let the answer be complete; who takes nothing any more is left without."""
        end = self._end if self._end is not None else End.RESTART
        self._streams.ends[end.word] += 1
        if self._torn:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD):
                await self._put(self._scribe.ended(end, time.time(), self._why), more=False)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if self._end is None and self._task is not None:
            self._gone = True
            self._task.cancel()

    # --- time -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Send the ping or end for silence if that is due, and look again when the next of it may be."""
        now = self._loop.time()
        if self._out.locked():
            # What is on its way keeps the connection, and the reader is the one who is silent.
            self._last_record = self._last_sent = now
        if self._in_hand and self._sought:
            # Others who filter have their turn first.
            self._last_record = now
        due = []
        if self._asked.form is Form.EVENTS:
            if now >= self._last_sent + PING_EVERY:
                self._ping()
            due.append(self._last_sent + PING_EVERY)
        seconds, end = self._asked.timeout, End.TIMEOUT
        if self._sought and (seconds is not None or not self._asked.follow):
            # It is not the stream that is silent.
            seconds, end = _ANSWER_WITHIN, End.BUS
        if seconds is not None:
            silent_at = self._last_record + seconds
            if now >= silent_at:
                self.end(end)
                return
            due.append(silent_at)
        self._timer = self._loop.call_at(min(due), self._look) if due else None

    def _found(self) -> None:
        """All that was there has come: from now on it is the stream that is silent."""
        self._sought = False
        self._last_record = self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
        self._look()

    def _ping(self) -> None:
        self._last_sent = self._loop.time()
        self._pinging = asyncio.create_task(self._put(PING), name="ping")


def _size(item: Record | Missing) -> int:
    return len(item.line) if isinstance(item, Record) else 0

"""All open streams of this process: their bounds, what they share, whose key is still good, and their common end.

Readers of the same stream are woken together and come to the same pieces, so that a piece is filtered and written out
once for all who want the same of it.
"""

import asyncio
import os
import socket
import time
import zlib
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from sandpost.api.logs.asking import Asked, Form
from sandpost.api.logs.filters import Filter, Wanted
from sandpost.api.logs.frames import End, Scribe, Written
from sandpost.api.logs.stream import Stream
from sandpost.bus.contract import Missing, Reader, Record
from sandpost.logs.setup import get_logger
from sandpost.model.errors import SandpostError, TooManyCalls, Unavailable
from sandpost.model.names import SYSTEM
from sandpost.store import Writer

log = get_logger()

MAX_STREAMS = 2048
"""Open at once; beyond it 503."""
MAX_OF_ONE = MAX_STREAMS // 2
"""Open at once of one tenant's records; beyond it 429."""
LOOK_EVERY = 0.5
"""Seconds between looks at the keys of who reads."""
_SHARED = 16
"""Pieces, as they were written, that are kept for others who come to them."""
_PACE_EACH = 0.0001
_PACE_MOST = 0.1
"""Seconds between two pieces of a stream, for each stream that is active, and at most: many lines in one write cost
what one does."""
_PACE_FROM = 32
"""Streams up to which each record is passed on at once."""
_SPENT = 0.001
"""Seconds of filtering that are nothing to speak of."""

Items = Sequence[Record | Missing]
Look = Callable[[Writer], tuple[int, set[bytes]]]
Store = Callable[[Look], Awaitable[tuple[int, set[bytes]]]]
"""Runs what looks into the store where that may wait."""


class _Time(msgspec.Struct):
    time: str = ""


class Streams:
    """The streams that are open over `reader`."""

    def __init__(self, store: Store, reader: Reader) -> None:
        self.reader = reader
        self.ends: Counter[str] = Counter()
        """Streams that ended, by why."""
        self.hostname = socket.gethostname()
        self.pid = os.getpid()
        self._store = store
        self._open: dict[Stream, None] = {}
        self._of: Counter[str] = Counter()
        self._ending: End | None = None
        self._looking: asyncio.Task[None] | None = None
        self._revision = -1
        """Of the store, when keys were looked up last."""
        self._fresh = False
        """Whether there are streams since whose keys were not looked up yet."""
        self._pace = 0.0
        self._shared: OrderedDict[tuple[int, Form, Wanted], tuple[Items, Written]] = OrderedDict()
        self._filtering = asyncio.Lock()
        self._decode_time = msgspec.json.Decoder(_Time).decode

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    async def open(self, tenant: str | None, asked: Asked, digest: bytes | None) -> Stream:
        """Return a stream of a tenant's records (None: of the platform's), read with the key of `digest`.

        `forget` it. Raises `TooManyCalls`, `Unavailable`, `BusError`, `InvalidValue`.
        """
        name = SYSTEM if tenant is None else tenant
        self._check_room(name)
        end = await self.reader.end(name)
        self._check_room(name)
        stream = Stream(self, name, tenant, asked, end)
        stream.digest = digest
        self._open[stream] = None
        self._of[name] += 1
        self._fresh = True
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="keys of streams")
        return stream

    def forget(self, stream: Stream) -> None:
        """Give back a stream that has ended."""
        del self._open[stream]
        self._of[stream.name] -= 1
        if not self._of[stream.name]:
            del self._of[stream.name]

    def end(self, why: End) -> None:
        """End all, and take no more."""
        self._ending = why
        for stream in list(self._open):
            stream.end(why)
        if self._looking is not None:
            self._looking.cancel()

    async def close(self) -> None:
        """End what is left, and let go of the bus."""
        self.end(End.RESTART)
        await self.reader.close()

    # --- what streams share -----------------------------------------------------------------------------------

    async def write(self, name: str, scribe: Scribe, wanted: Filter, items: Items) -> Written:
        """Return what becomes of a piece of the stream `name`."""
        if not wanted.works:
            return self._make(name, scribe, wanted, items)
        # One at a time, and half of the time at most: what a pattern costs is paid by those who filter.
        async with self._filtering:
            began = time.perf_counter()
            written = self._make(name, scribe, wanted, items)
            spent = time.perf_counter() - began
            if spent > _SPENT:
                await asyncio.sleep(spent)
        return written

    async def pace(self, name: str) -> None:
        """Wait as long as a stream does between two pieces, to a moment that all who read it share."""
        pace = self._pace
        if pace:
            now = asyncio.get_running_loop().time()
            phase = zlib.crc32(name.encode()) / 0x1_0000_0000 * pace
            await asyncio.sleep(pace - (now - phase) % pace)

    def time_of(self, line: bytes) -> str:
        """Return the time of a record as it stands there; empty if it has none."""
        try:
            return self._decode_time(line).time
        except msgspec.DecodeError:
            return ""

    def _make(self, name: str, scribe: Scribe, wanted: Filter, items: Items) -> Written:
        if self._of[name] < 2:
            return scribe.piece(items, wanted, time.time())
        key = (id(items), scribe.form, wanted.wanted)
        known = self._shared.get(key)
        if known is None:
            # The piece itself is kept with it, so that its number is no other one's.
            known = (items, scribe.piece(items, wanted, time.time()))
            self._shared[key] = known
            if len(self._shared) > _SHARED:
                self._shared.popitem(last=False)
        return known[1]

    # --- bounds and keys --------------------------------------------------------------------------------------

    def _check_room(self, name: str) -> None:
        if self._ending is not None:
            raise Unavailable("the api is started again: try again", retry_after=1, component="api")
        if len(self._open) >= MAX_STREAMS:
            raise Unavailable(f"{MAX_STREAMS} streams of logs are open: end one, or try again later", retry_after=10)
        if self._of[name] >= MAX_OF_ONE:
            raise TooManyCalls(
                f"{MAX_OF_ONE} streams of these logs are open: end one, or try again later", retry_after=10
            )

    async def _look(self) -> None:
        """End streams whose key was revoked; see how many are active."""
        while self._open:
            await asyncio.sleep(LOOK_EVERY)
            active = 0
            for stream in self._open:
                active += stream.active
                stream.active = False
            self._pace = min(_PACE_MOST, active * _PACE_EACH) if active > _PACE_FROM else 0.0
            try:
                await self._check_keys()
            except SandpostError as error:
                log.warning("keys of open streams cannot be looked up: streams go on", problem=error.message)
        self._pace = 0.0
        self._looking = None

    async def _check_keys(self) -> None:
        digests = {stream.digest for stream in self._open if stream.digest is not None}
        if not digests:
            return
        known, self._fresh = -1 if self._fresh else self._revision, False

        def work(writer: Writer) -> tuple[int, set[bytes]]:
            revision = writer.revision()
            if revision == known:
                return revision, set()
            return revision, {digest for digest in digests if writer.key(digest) is None}

        self._revision, gone = await self._store(work)
        for stream in list(self._open):
            if stream.digest in gone:
                stream.end(End.REVOKED)

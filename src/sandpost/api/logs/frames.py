"""How records, and what the platform has to say of their stream, are written to a reader. Pure.

As lines: a JSON document and a newline. As events (https://html.spec.whatwg.org/multipage/server-sent-events.html):
`id: OFFSET`, `data: RECORD` and an empty line. Each is made in one piece, so that no write ends within it.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from sandpost.api.logs.asking import Form
from sandpost.api.logs.filters import Filter
from sandpost.bus.batches import with_offset
from sandpost.bus.contract import Missing, Record
from sandpost.logs import bunyan

PING = b"event: ping\ndata: \n\n"


class End(enum.Enum):
    """Why a stream ends: the word, and what is said of it."""

    MAX = "as many records as were asked for"
    TIMEOUT = "no record came for the time that was asked for"
    TOLD = "all that was there has been told"
    REVOKED = "the key is not good any more"
    RESTART = "the api is started again: connect again, and go on behind the last offset"
    BUS = "the log bus cannot be read now: connect again, and go on behind the last offset"
    FAILED = "the api failed at this stream, its log says why: connect again, and go on behind the last offset"

    @property
    def word(self) -> str:
        """One word, for programs."""
        return self.name.lower()


class Written(NamedTuple):
    """What a piece of a stream became: its bytes, and how many records are in them (notes are not counted)."""

    data: bytes
    records: int


@dataclass(frozen=True, slots=True)
class Scribe:
    """Writes records of one stream (a tenant's; None: the platform's) in one form."""

    tenant: str | None
    form: Form
    hostname: str
    pid: int

    def piece(self, items: Sequence[Record | Missing], wanted: Filter, now: float, most: int | None = None) -> Written:
        """Return what passes of `items`, `most` records of it at most."""
        frames: list[bytes] = []
        records = 0
        for item in items:
            if isinstance(item, Missing):
                frames.append(self._missing(item, now))
                continue
            if not wanted.passes(item.line, item.offset):
                continue
            frames.append(self._frame(with_offset(item.line, item.offset), item.offset))
            records += 1
            if records == most:
                break
        data = b"".join(frames)
        if self.form is Form.EVENTS and b"\r" in data:
            # Between the parts of a record JSON allows it; here it would end a line.
            data = data.replace(b"\r", b" ")
        return Written(data, records)

    def behind(self, offset: int, end: int, now: float) -> bytes:
        """Tell that an offset was asked for which no record has yet."""
        return self._note(
            f"offset {offset} is behind the end of this stream: it goes on from {end}", now, {"next": end}
        )

    def ended(self, end: End, now: float, why: str = "") -> bytes:
        """Tell why this is all. Of `End.MAX` lines say nothing: who asked for ten records gets ten lines."""
        if self.form is Form.EVENTS:
            return f": end {end.word}: {why or end.value}\n\n".encode()
        if end is End.MAX:
            return b""
        level = bunyan.INFO if end in (End.TIMEOUT, End.TOLD, End.RESTART) else bunyan.WARN
        return self._note(f"end of stream: {why or end.value}", now, {"end": end.word}, level=level)

    def _missing(self, gap: Missing, now: float) -> bytes:
        count = gap.next_ - gap.first
        what = f"1 record is missing here, offset {gap.first}"
        if count > 1:
            what = f"up to {count:,} records are missing here, offsets {gap.first} to {gap.next_ - 1}"
        if not gap.next_:
            note = f"records may be missing here: {gap.why}"
            return self._note(note, now, {"missing": 0, "next": 0})
        # It stands where the last of them would: who connects again goes on behind it.
        last = gap.next_ - 1
        return self._note(f"{what}: {gap.why}", now, {"missing": count, "next": gap.next_, "offset": last}, last)

    def _note(
        self, text: str, now: float, more: dict[str, int | str], offset: int | None = None, level: int = bunyan.WARN
    ) -> bytes:
        record: dict[str, int | str] = {
            "name": bunyan.NAME,
            "hostname": self.hostname,
            "pid": self.pid,
            "level": level,
            "time": bunyan.timestamp(now),
            "msg": text,
            "v": bunyan.VERSION,
        }
        if self.tenant is not None:
            record["container"] = self.tenant
        return self._frame(msgspec.json.encode(record | more), offset)

    def _frame(self, record: bytes, offset: int | None) -> bytes:
        if self.form is Form.LINES:
            return record + b"\n"
        if offset is None:
            return b"data: %b\n\n" % record
        return b"id: %d\ndata: %b\n\n" % (offset, record)

"""The runtime's frames, as docs/runtime.md lays them out. Pure.

The program shares its process with the runtime and can write anything to descriptor 3, so a frame's level and
request id are claims: bounded and of the right form, no more.
"""

import re
import struct
from typing import Final

from sandpost.logs import bunyan
from sandpost.logs.said import Said

MAX_FRAME: Final = 4096
MAX_TEXT: Final = 64 * 1024 + 64
"""Bytes of a record that came in several frames (the runtime's bound and its ` [N bytes cut]`)."""
MAGIC: Final = b"\xf5\x01"
MORE: Final = 1
NOTICE: Final = 2

_HEADER = struct.Struct(">BBBBHBB")
_LEVELS = frozenset({bunyan.TRACE, bunyan.DEBUG, bunyan.INFO, bunyan.WARN, bunyan.ERROR})
_LOSS = re.compile(rb"([0-9]{1,7}) log records ")
"""How a notice begins that tells of records which the runtime dropped."""
_LAST = re.compile(re.escape(MAGIC) + rb".[\0\2]", re.DOTALL)
"""How a record's only or last frame begins: of a record that is skipped in part the rest is read as one."""
_NOTICE_HEAD = MAGIC + bytes((bunyan.WARN, NOTICE))
_NOTICE = re.compile(re.escape(_NOTICE_HEAD) + rb"..\0\0" + _LOSS.pattern, re.DOTALL)
_LONGEST_NOTICE = _HEADER.size + 7 + len(b" log records ")
_REQ_ID = re.compile(rb"[\x20-\x7e]{0,64}")
_TRACED = re.compile(rb"([\x21-\x7e]+) ([0-9a-f]{32})")
"""A request id with the trace that the request belongs to."""


class FrameCutter:
    """Decoder of a frames stream. Bytes that are no frame count as `forged`."""

    def __init__(self, end: int = 0, *, torn: bool = False) -> None:
        self.forged = 0
        self.end = end
        self.torn = torn  # between frames that we understand: looking for the next magic
        self._buffer = b""
        self._at = end  # where the buffer begins; before it may be a record that is being joined
        self._joining: tuple[int, bytes, int] | None = None  # level, request id, flags of an unfinished record
        self._joined = end  # where its last frame ends
        self._parts: list[bytes] = []
        self._size = 0

    @property
    def pending(self) -> bool:
        return bool(self._buffer) or self._joining is not None

    def feed(self, data: bytes) -> list[Said]:
        buffer = self._buffer + data
        said: list[Said] = []
        at = 0
        while True:
            if self.torn:
                found = buffer.find(MAGIC, at)
                if found < 0:
                    # The last byte may be the first of a magic.
                    at = len(buffer) - 1 if buffer.endswith(MAGIC[:1]) else len(buffer)
                    break
                at, self.torn = found, False
            if len(buffer) - at < _HEADER.size:
                break
            magic, version, level, flags, text_size, id_size, zero = _HEADER.unpack_from(buffer, at)
            text_at = at + _HEADER.size + id_size
            end = text_at + text_size
            if (
                (magic, version, zero) != (MAGIC[0], MAGIC[1], 0)
                or level not in _LEVELS
                or flags > MORE | NOTICE
                or id_size > 64
                or end - at > MAX_FRAME
            ):
                at = self._lose(at, said)
                continue
            if len(buffer) < end:
                break
            req_id = buffer[at + _HEADER.size : text_at]
            if _REQ_ID.fullmatch(req_id) is None:
                at = self._lose(at, said)
                continue
            head = (level, req_id, flags & NOTICE)
            self._join(head, buffer[text_at:end], self._at + end, said)
            if not flags & MORE or len(self._parts) >= MAX_FRAME:
                self._end_record(said)
            at = end
        self._buffer = buffer[at:]
        self._at += at
        if self._joining is None:
            self.end = self._at
        return said

    def skip(self, data: bytes) -> int:
        whole = self._buffer + data
        held = _undecided(whole)
        passed = whole[: len(whole) - held]
        lines = len(_LAST.findall(passed)) + sum(int(lost) - 1 for lost in _NOTICE.findall(passed))
        self._buffer = whole[len(passed) :]
        self._at += len(passed)
        self.end, self.torn = self._at, True
        self._joining = None
        self._parts, self._size = [], 0
        return lines

    def flush(self) -> list[Said]:
        said: list[Said] = []
        self._end_record(said)
        if self._buffer:
            # Frames are written whole or not at all: what stops in the middle is none.
            self.forged += not self.torn
            self._at += len(self._buffer)
            self._buffer, self.torn = b"", True
            self.end = self._at
        return said

    def _lose(self, at: int, said: list[Said]) -> int:
        """Note bytes that are no frame; return where to look on."""
        self.forged += 1
        self.torn = True
        self._end_record(said)
        return at + 1

    def _join(self, head: tuple[int, bytes, int], text: bytes, end: int, said: list[Said]) -> None:
        if self._joining is not None and (self._joining != head or self._size + len(text) > MAX_TEXT):
            self._end_record(said)
        if self._joining is None:
            self._joining = head
        self._parts.append(text)
        self._size += len(text)
        self._joined = end

    def _end_record(self, said: list[Said]) -> None:
        if self._joining is None:
            return
        level, req_id, _ = self._joining
        self.end = self._joined
        text = b"".join(self._parts)
        traced = _TRACED.fullmatch(req_id)
        trace_id = traced[2].decode("ascii") if traced else None
        req_id = traced[1] if traced else req_id
        said.append(Said(level, req_id.decode("ascii") or None, text, self.end, self._joined_lines(), trace_id))
        self._joining = None
        self._parts, self._size = [], 0

    def _joined_lines(self) -> int:
        """Return how many lines the record stands for that is being joined."""
        assert self._joining is not None
        told = _LOSS.match(self._parts[0]) if self._joining[2] else None
        return int(told[1]) if told is not None else 1


def _undecided(data: bytes) -> int:
    """Return how many bytes at the end of `data` do not tell yet how many lines they stand for."""
    begin = data.rfind(MAGIC)
    if begin < 0:
        return 1 if data.endswith(MAGIC[:1]) else 0
    tail = data[begin:]
    size = _HEADER.size + int.from_bytes(tail[4:6], "big") if len(tail) >= 6 else _LONGEST_NOTICE
    if len(tail) < len(_NOTICE_HEAD) or (tail.startswith(_NOTICE_HEAD) and len(tail) < min(size, _LONGEST_NOTICE)):
        return len(tail)
    return 1 if data.endswith(MAGIC[:1]) else 0

"""Log records as frames on descriptor 3 (docs/runtime.md, "Frames"). Never blocks, never raises, bounded."""

from __future__ import annotations

import os
from _thread import RLock
from posix import write as _write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FD = 3
_FRAME = 4096  # PIPE_BUF: written whole or not at all
_HEADER = 8
_RECORD = 65536
_QUEUE = 256 * 1024
_MORE = 1
_NOTICE = 2


def _is_named_fifo() -> bool:
    """Whether somebody handed us the log: a pipe without a name is one of Python's or a child's."""
    try:
        kind = os.fstat(FD).st_mode & 0o170000
        return kind == 0o010000 and not os.readlink(f"/proc/self/fd/{FD}").startswith("pipe:")
    except OSError:
        return False


def _encode(text: str) -> bytes:
    """Return a record's text as at most `_RECORD` bytes."""
    if len(text) <= _RECORD // 4:
        return text.encode("utf-8", "replace")
    total = len(text.encode("utf-8", "replace"))
    if total <= _RECORD:
        return text.encode("utf-8", "replace")
    mark = b" [%d bytes cut]" % (total - _RECORD)
    return text[:_RECORD].encode("utf-8", "replace")[: _RECORD - len(mark)] + mark


class Frames:
    """The way out. Any thread may write; a record's frames follow one another."""

    def __init__(self) -> None:
        self._open = _is_named_fifo()
        if self._open:
            os.set_inheritable(FD, False)
        # A finaliser that prints may run in the midst of a write.
        self._lock = RLock()
        self._writing = False
        self._late: list[tuple[int, str, str]] = []
        self._queue: list[bytes] = []
        self._queued = 0
        self._dropped_records = 0
        self._dropped_bytes = 0
        self.when_full: Callable[[], object] = bool
        """Called when records wait for room: `drain` is to be called a moment later."""
        os.register_at_fork(after_in_child=self._forked)

    def write(self, level: int, req_id: str, text: str) -> None:
        """Record `text` at `level` (10 to 50) for the call `req_id` ("" for none)."""
        if not self._open:
            return
        with self._lock:
            if self._writing:
                self._late.append((level, req_id, text))
                return
            self._writing = True
            try:
                self._record(level, req_id, text)
                while self._late:
                    self._record(*self._late.pop(0))
            finally:
                self._writing = False

    def drain(self) -> None:
        """Hand over what fits, wait for nothing."""
        with self._lock:
            if self._queue and not self._writing:
                self._writing = True
                try:
                    self._hand_over()
                finally:
                    self._writing = False
                if self._queue:
                    self.when_full()

    def _record(self, level: int, req_id: str, text: str) -> None:
        if self._queue:
            self._hand_over()
        if self._queue and self._queued + min(len(text), _RECORD) > _QUEUE:
            self._dropped_records += 1
            self._dropped_bytes += len(text.encode("utf-8", "replace"))
            return
        self._send(level, 0, req_id, text)

    def _hand_over(self) -> None:
        sent = 0
        for frame in self._queue:
            if not self._put(frame):
                break
            sent += 1
            self._queued -= len(frame)
        del self._queue[:sent]
        if self._queue or not self._dropped_records:
            return
        text = f"{self._dropped_records} log records ({self._dropped_bytes} bytes) were dropped: "
        text += "they came faster than they are read"
        self._dropped_records = self._dropped_bytes = 0
        self._send(40, _NOTICE, "", text)

    def _send(self, level: int, flags: int, req_id: str, text: str) -> None:
        ident = req_id.encode("ascii")
        data = _encode(text)
        room = _FRAME - _HEADER - len(ident)
        at = 0
        while True:
            part = data[at : at + room]
            at += room
            more = flags | _MORE if at < len(data) else flags
            frame = bytes((0xF5, 1, level, more, len(part) >> 8, len(part) & 255, len(ident), 0)) + ident + part
            if self._queue or not self._put(frame):
                if not self._queue:
                    self.when_full()
                self._queue.append(frame)
                self._queued += len(frame)
            if at >= len(data):
                return

    @staticmethod
    def _put(frame: bytes) -> bool:
        """Write; False if there is no room. What another try would not mend counts as written."""
        try:
            _write(FD, frame)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def _forked(self) -> None:
        self._lock = RLock()
        self._writing = False
        self._queue = []
        self._queued = 0


FRAMES = Frames()
write = FRAMES.write

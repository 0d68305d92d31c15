"""The body of a request: its framing, and what of it waits to be taken. Pure but for who is told."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

HIGH_WATER = 65536
_MAX_LINE = 4096

_DATA, _SIZE, _DATA_END, _TRAILER, _DONE = range(5)


class FramingError(Exception):
    """The chunks are none."""


class Body:
    """What came of a body. `wanted` says whether more of it should be read now."""

    __slots__ = (
        "_line",
        "_remaining",
        "_state",
        "_whole",
        "arrived",
        "broken",
        "chunked",
        "chunks",
        "discard",
        "held",
        "reader",
        "size",
    )

    def __init__(self, length: int, *, chunked: bool) -> None:
        self.chunked = chunked
        self.chunks: list[bytes] = []
        self.size = 0
        """Bytes in `chunks`."""
        self.discard = False
        self.held = True
        """Nobody has asked for it: no more than a little is read."""
        self.broken = False
        """The client went away before its end."""
        self.arrived: Callable[[], object] | None = None
        """Called when there is more, or the end."""
        self.reader: Callable[[Any, BaseException | None], bool] | None = None
        """Who waits for that."""
        self._whole: Callable[[bytes], object] | None = None
        self._remaining = length
        self._line = b""
        self._state = _SIZE if chunked else (_DATA if length > 0 else _DONE)

    @property
    def finished(self) -> bool:
        """Whether its last byte has come."""
        return self._state == _DONE

    @property
    def wanted(self) -> bool:
        """Whether what comes can be taken in."""
        return self._state != _DONE and (not self.held or self.size < HIGH_WATER)

    def gather(self, then: Callable[[bytes], object]) -> None:
        """Call `then` once with all of it; never, if the client goes away first."""
        self.held = False
        self._whole = then
        self.arrived = self._gathered
        self._gathered()

    def drop(self) -> None:
        """Nobody wants what is left."""
        self.discard, self.held = True, False
        self.chunks, self.size = [], 0
        self.arrived = None

    def take(self) -> bytes:
        """Take what has come."""
        chunks = self.chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self.chunks, self.size = [], 0
        return data

    def put_back(self, data: bytes) -> None:
        """Nobody waited any more for what was taken: it is there again, before all else."""
        if not data or self.discard:
            return
        self.chunks.insert(0, data)
        self.size += len(data)
        if self.arrived is not None:
            self.arrived()

    def _gathered(self) -> None:
        if self.finished and self._whole is not None:
            then, self._whole, self.arrived = self._whole, None, None
            then(self.take())

    def feed(self, data: bytes) -> bytes:
        """Take in what the framing says is the body's, and return the rest. Raises `FramingError`."""
        if not self.chunked:
            part = data[: self._remaining]
            self._remaining -= len(part)
            self._keep(part)
            if not self._remaining:
                self._state = _DONE
            return data[len(part) :]
        data = self._line + data
        self._line = b""
        while data and self._state != _DONE:
            if self._state == _DATA:
                part = data[: self._remaining]
                self._remaining -= len(part)
                self._keep(part)
                data = data[len(part) :]
                if not self._remaining:
                    self._state = _DATA_END
                continue
            line, end, rest = data.partition(b"\r\n")
            if not end:
                if len(data) > _MAX_LINE:
                    raise FramingError("a line without an end")
                self._line = data
                return b""
            data = rest
            self._read_line(line)
        return data

    def _read_line(self, line: bytes) -> None:
        if self._state == _SIZE:
            size = line.partition(b";")[0].strip()
            if not size or len(size) > 16 or not all(byte in b"0123456789abcdefABCDEF" for byte in size):
                raise FramingError("no size of a chunk")
            self._remaining = int(size, 16)
            self._state = _DATA if self._remaining else _TRAILER
        elif self._state == _DATA_END:
            if line:
                raise FramingError("a chunk that is too long")
            self._state = _SIZE
        elif not line:
            self._state = _DONE

    def _keep(self, part: bytes) -> None:
        if part and not self.discard:
            self.chunks.append(part)
            self.size += len(part)

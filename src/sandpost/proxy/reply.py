"""A runtime's short answer to what the proxy itself asks, gathered whole. Pure."""

from sandpost.model.wire import VERSION
from sandpost.proxy.http1.body import BodyReader
from sandpost.proxy.http1.errors import BrokenResponse
from sandpost.proxy.http1.response import ResponseHead, parse_response

WIRE = b"%d" % VERSION
"""The version of docs/runtime.md that this proxy speaks."""
_MAX_HEAD = 16 * 1024


class OtherWire(Exception):  # noqa: N818 - no error of ours: the runtime is of another release
    """The runtime says that it speaks `wire`; b"none" if it says nothing."""

    def __init__(self, wire: bytes) -> None:
        super().__init__(wire)
        self.wire = wire


class Reply:
    """`feed` it until it is whole; the body has at most `limit` bytes."""

    def __init__(self, method: str, limit: int) -> None:
        self._head: ResponseHead | None = None
        self._method = method
        self._limit = limit
        self._partial = b""
        self._reader: BodyReader | None = None
        self._body: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> ResponseHead | None:
        """Take what came; return the head once that was all. Raises `OtherWire`, and `BrokenResponse` for no answer."""
        if self._reader is None:
            self._partial += data
            head = parse_response(self._partial, _MAX_HEAD, self._method)
            if head is None:
                return None
            wire = head.get(b"x-sandpost-wire")
            if wire != WIRE:
                raise OtherWire(wire or b"none")
            self._head = head
            self._reader = BodyReader(head.body, BrokenResponse)
            data = self._partial[head.size :]
        for piece in self._reader.feed(data):
            self._body.append(bytes(piece))
            self._size += len(piece)
        if self._size > self._limit:
            raise BrokenResponse(f"the answer is longer than {self._limit} bytes")
        if self._reader.behind:
            raise BrokenResponse("the answer comes in chunks of a few bytes")
        if self._reader.finished and self._reader.excess:
            raise BrokenResponse("bytes follow the answer")
        return self._head if self._reader.finished else None

    @property
    def body(self) -> bytes:
        """What of the body has come."""
        return b"".join(self._body)

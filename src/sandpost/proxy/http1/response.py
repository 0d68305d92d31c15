"""Heads of responses as they come out of a sandbox, where whoever writes them may be hostile.

Decisions that RFC 9110 and 9112 leave open:

- Statuses 200 to 599; of 1xx only 100, 102 and 103, which carry no framing and are skipped, and 101 as an answer to an
  upgrade that was asked for, with the same protocol.
- A 204 that announces a body is served without one, and its connection is not used again: whatever follows belongs to
  nobody.
- A body ends by Content-Length, by chunks, or with the connection; anything that says two things is refused.
"""

import re
from functools import lru_cache
from typing import Literal

import msgspec

from sandpost.proxy.http1._grammar import (
    MAX_FIELDS,
    Field,
    FieldReader,
    connection_options,
    content_length,
    refuse_controls,
)
from sandpost.proxy.http1.body import CHUNKED, NONE, UNTIL_CLOSE, Body, Kind
from sandpost.proxy.http1.errors import BrokenResponse, RuleError


class ResponseHead(msgspec.Struct, frozen=True, gc=False):
    """One parsed head. `headers` is not to be changed."""

    status: int
    headers: list[Field]
    minor: Literal[0, 1]
    size: int
    """Bytes of the buffer that the head took."""
    body: Body
    keep_alive: bool
    """Whether the connection may serve another exchange once the body has been read."""
    upgrade: bytes | None
    """With status 101 the protocol that both sides speak from here on, in lower case."""

    @property
    def interim(self) -> bool:
        """Whether another head follows for the same request; bound how many of these you skip."""
        return self.status < 200 and self.status != 101

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of the field `name` (lower case)."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9]) [\t -~\x80-\xff]*+")
_SPECIAL = frozenset({b"content-length", b"transfer-encoding", b"connection", b"upgrade"})
_INTERIM = frozenset({100, 102, 103})

_fields = FieldReader()


def parse_response(
    buffer: bytes | bytearray,
    limit: int,
    request_method: str,
    upgrade: bytes | None = None,
    seen: int = 0,
) -> ResponseHead | None:
    """Return the head at the beginning of `buffer`, or None if more bytes are needed.

    `request_method` and `upgrade` (lower case, None if not asked for) are the request's; `seen` as for
    `parse_request`. Raises `BrokenResponse`; the answer is the same however the bytes were split.
    """
    try:
        end = buffer.find(b"\r\n\r\n", max(0, seen - 3))
        if end < 0 or end + 4 > limit:
            _incomplete(buffer, limit, seen)
            return None
        head = bytes(buffer[:end])
        try:
            return _parse(head, end + 4, request_method, upgrade)
        except RuleError:
            refuse_controls(buffer, 0, end + 4)
            raise
    except RuleError as broken:
        raise BrokenResponse(str(broken)) from None


def _incomplete(buffer: bytes | bytearray, limit: int, seen: int) -> None:
    refuse_controls(buffer, max(0, seen - 1), min(len(buffer), limit))
    if len(buffer) >= limit:
        raise RuleError(f"the head is longer than {limit} bytes")


@lru_cache(maxsize=64)
def _status(line: bytes) -> tuple[Literal[0, 1], int]:
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise RuleError("the status line is not `HTTP/1.1 STATUS REASON` with a status from 100 to 599")
    return (1 if match[1] == b"1" else 0), int(match[2])


def _parse(head: bytes, size: int, request_method: str, asked: bytes | None) -> ResponseHead:
    lines = head.split(b"\r\n")
    minor, status = _status(lines.pop(0))
    if len(lines) > MAX_FIELDS:
        raise RuleError(f"there are more than {MAX_FIELDS} header fields")
    headers = _fields.read(lines)
    length: int | None = None
    protocol: bytes | None = None
    options: frozenset[bytes] = frozenset()
    chunked = False
    for name, value in headers:
        if name not in _SPECIAL:
            continue
        if name == b"content-length":
            if length is not None:
                raise RuleError("there is more than one Content-Length")
            length = content_length(value)
        elif name == b"transfer-encoding":
            if chunked:
                raise RuleError("there is more than one Transfer-Encoding")
            if value.lower() != b"chunked":
                raise RuleError("the only Transfer-Encoding is `chunked`")
            chunked = True
        elif name == b"connection":
            options |= connection_options(value)
        else:
            protocol = value.lower() if protocol is None else b""

    if chunked and length is not None:
        raise RuleError("there are both Transfer-Encoding and Content-Length")
    if chunked and minor == 0:
        raise RuleError("HTTP/1.0 has no Transfer-Encoding")
    keep_alive = b"close" not in options and (minor == 1 or b"keep-alive" in options)
    upgraded = None
    if status < 200:
        if chunked or length is not None:
            raise RuleError("an interim response announces a body")
        if status == 101:
            if asked is None or b"upgrade" not in options or protocol != asked:
                raise RuleError("it switches protocols without having been asked for that protocol")
            upgraded = asked
            keep_alive = False
        elif status not in _INTERIM:
            raise RuleError(f"the interim status {status} does not exist")
        body = NONE
    elif status in (204, 304) or request_method == "HEAD":
        body = NONE
        if status == 204 and (chunked or length):
            keep_alive = False
    elif chunked:
        body = CHUNKED
    elif length is not None:
        body = Body(Kind.LENGTH, length)
    else:
        body = UNTIL_CLOSE
        keep_alive = False
    return ResponseHead(status, headers, minor, size, body, keep_alive, upgraded)

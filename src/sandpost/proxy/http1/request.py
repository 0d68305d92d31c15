"""Heads of requests: RFC 9112 to the letter, and stricter where its leniency has been used for smuggling.

Decisions that the RFC leaves open:

- Up to two empty lines before the request line are skipped (RFC 9112 section 2.2).
- The target is visible ASCII without `#`. The other characters that RFC 3986 leaves out (`"<>\\^`{|}`) pass, since
  browsers and curl send some of them as they are and none of them can end a target.
- Absolute-form is accepted (section 3.2.2), if it names the same authority as Host. CONNECT is refused.
- HTTP/1.0 has no Transfer-Encoding, and there Host may be missing.
- Upgrade is honoured for exactly one protocol, not `h2c`, in a 1.1 request without a body; else it is ignored, as a
  server may (RFC 9110 section 7.8).
"""

import re
from typing import Literal

import msgspec

from sandpost.model.errors import HeadTooLarge
from sandpost.proxy.http1._grammar import (
    MAX_FIELDS,
    TOKEN,
    Field,
    FieldReader,
    connection_options,
    content_length,
    refuse_controls,
    shown,
)
from sandpost.proxy.http1.body import CHUNKED, NONE, Body, Kind
from sandpost.proxy.http1.errors import RuleError, malformed


class RequestHead(msgspec.Struct, frozen=True, gc=False):
    """One parsed head. `headers` is not to be changed."""

    method: str
    target: bytes
    """Origin-form (or `*`) as it came; of an absolute-form the part behind the authority."""
    path: bytes
    """Up to the first `?`, untouched: never decoded, never normalised."""
    query: bytes
    """Behind the first `?`, untouched; empty if there is none."""
    minor: Literal[0, 1]
    headers: list[Field]
    size: int
    """Bytes of the buffer that the head took, empty lines before it included."""
    body: Body
    keep_alive: bool
    """Whether the client lets the connection go on after this exchange."""
    expect_continue: bool
    upgrade: bytes | None
    """The protocol asked for, in lower case."""

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of the field `name` (lower case)."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


_TARGET = rb"((/[!\"$->@-~]*+)(?:\?([!\"$-~]*+))?)"
_REQUEST_LINE = re.compile(rb"(%b{1,20}) %b HTTP/1\.([01])" % (TOKEN, _TARGET))
_OTHER_LINE = re.compile(rb"(%b{1,20}) ([!\"$-~]+) HTTP/1\.([01])" % TOKEN)
_ORIGIN = re.compile(_TARGET)
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?]*)([/?].*)?")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_METHODS = {name.encode(): name for name in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")}
_SPECIAL = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"})


def _check(name: bytes, value: bytes) -> None:
    if name == b"host" and _HOST.fullmatch(value) is None:
        raise RuleError("Host is not a name or address with an optional port")


_fields = FieldReader(_check)


def parse_request(buffer: bytes | bytearray, limit: int, seen: int = 0) -> RequestHead | None:
    """Return the head at the beginning of `buffer`, or None if more bytes are needed.

    `limit` bounds the head in bytes. `seen` is how many bytes of the buffer an earlier call that returned None has been
    shown; with it slow senders cost what they send and not its square. Raises `HeadTooLarge` or `MalformedRequest`,
    both saying which rule was broken; the answer is the same however the bytes were split.
    """
    try:
        start = _skip_empty_lines(buffer) if buffer[:1] == b"\r" else 0
        end = buffer.find(b"\r\n\r\n", max(start, seen - 3))
        if end < 0 or end + 4 > limit:
            _incomplete(buffer, limit, seen)
            return None
        head = bytes(buffer[start:end])
        try:
            return _parse(head, end + 4)
        except RuleError:
            # Of several faults the one is told that was to be seen first, as if the bytes had come one by one.
            _refuse(buffer, start, end + 4)
            raise
    except RuleError as broken:
        raise malformed(str(broken)) from None


def _skip_empty_lines(buffer: bytes | bytearray) -> int:
    start = 0
    while buffer.startswith(b"\r\n", start):
        if start == 4:
            raise RuleError("more than two empty lines stand before the request line")
        start += 2
    return start


def _incomplete(buffer: bytes | bytearray, limit: int, seen: int) -> None:
    _refuse(buffer, max(0, seen - 1), min(len(buffer), limit))
    if len(buffer) >= limit:
        raise HeadTooLarge(f"the request's head is longer than {limit} bytes: send fewer or shorter headers")


def _refuse(buffer: bytes | bytearray, start: int, end: int) -> None:
    if buffer[:1] == b"\x16":
        raise RuleError("this looks like TLS, and this port speaks plain HTTP")
    refuse_controls(buffer, start, end)


def _parse(head: bytes, size: int) -> RequestHead:
    lines = head.split(b"\r\n")
    line = lines.pop(0)
    if len(lines) > MAX_FIELDS:
        raise RuleError(f"there are more than {MAX_FIELDS} header fields")
    match = _REQUEST_LINE.fullmatch(line)
    if match is not None:
        method, target, path, query, digit = match.groups(b"")
        authority = None
    else:
        method, target, path, query, digit, authority = _other_forms(line)
    if method == b"CONNECT":
        raise RuleError("CONNECT is not served")
    minor: Literal[0, 1] = 1 if digit == b"1" else 0

    headers = _fields.read(lines)
    host = length = expect = None
    options: frozenset[bytes] = frozenset()
    protocols: list[bytes] = []
    chunked = False
    for name, value in headers:
        if name not in _SPECIAL:
            continue
        if name == b"host":
            if host is not None:
                raise RuleError("there is more than one Host")
            host = value
        elif name == b"content-length":
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
        elif name == b"upgrade":
            protocols.append(value)
        else:
            if value.lower() != b"100-continue" or expect is not None:
                raise RuleError("the only Expect is `100-continue`, once")
            expect = value

    if minor == 1:
        if host is None:
            raise RuleError("Host is missing")
        keep_alive = b"close" not in options
    else:
        if chunked:
            raise RuleError("HTTP/1.0 has no Transfer-Encoding")
        keep_alive = b"keep-alive" in options and b"close" not in options
    if authority is not None and host is not None and authority.lower() != host.lower():
        raise RuleError("the target's authority is not the one in Host")
    if authority is not None and host is None:
        headers.append((b"host", authority))
    if chunked:
        if length is not None:
            raise RuleError("there are both Transfer-Encoding and Content-Length")
        body = CHUNKED
    else:
        body = NONE if length is None else Body(Kind.LENGTH, length)

    upgrade = None
    if protocols and minor == 1 and b"upgrade" in options and body.empty:
        upgrade = _single_protocol(protocols)
    expects = expect is not None and minor == 1 and not body.empty
    return RequestHead(
        _METHODS.get(method) or method.decode("ascii"),
        target,
        path,
        query,
        minor,
        headers,
        size,
        body,
        keep_alive,
        expects,
        upgrade,
    )


_PROTOCOL = re.compile(rb"%b+(?:/%b+)?" % (TOKEN, TOKEN))


def _single_protocol(values: list[bytes]) -> bytes | None:
    if len(values) != 1 or _PROTOCOL.fullmatch(values[0]) is None:
        return None
    protocol = values[0].lower()
    return None if protocol == b"h2c" else protocol


def _other_forms(line: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes | None]:
    """Return method, target, path, query, minor digit and authority of a line that is not in origin-form."""
    match = _OTHER_LINE.fullmatch(line)
    if match is None:
        raise RuleError(_why_line(line))
    method, target, digit = match.groups()
    if target == b"*":
        if method != b"OPTIONS":
            raise RuleError("the target `*` belongs to OPTIONS alone")
        return method, target, target, b"", digit, None
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or _HOST.fullmatch(absolute[1]) is None:
        if method == b"CONNECT":
            raise RuleError("CONNECT is not served")
        raise RuleError("the target does not begin with `/`")
    behind = absolute[2] or b""
    if not behind.startswith(b"/"):
        behind = b"*" if method == b"OPTIONS" and not behind else b"/" + behind
    origin = _ORIGIN.fullmatch(behind)
    if origin is None:
        return method, behind, behind, b"", digit, absolute[1]
    return method, origin[1], origin[2], origin[3] or b"", digit, absolute[1]


def _why_line(line: bytes) -> str:
    if line == b"PRI * HTTP/2.0":
        return "this is HTTP/2 and the server speaks HTTP/1.1"
    if not line:
        return "the request line is empty"
    parts = line.split(b" ")
    if len(parts) != 3 or not parts[1]:
        return "the request line is not `METHOD TARGET HTTP/1.1` with single spaces"
    if re.fullmatch(rb"HTTP/1\.[01]", parts[2]) is None:
        return f"`{shown(parts[2])}` is not HTTP/1.1 or HTTP/1.0"
    if re.fullmatch(rb"%b{1,20}" % TOKEN, parts[0]) is None:
        return "the method is not a token of at most 20 characters"
    return "the target contains characters outside visible ASCII, or `#`"

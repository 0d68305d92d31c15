"""Reads the head of a plain HTTP/1 request to the outside, and makes it the only one of its connection. Pure, strict.

A gate that checked the first request alone would let the second go to another host of the same server. So one request
passes: it is sent with `Connection: close`, and of the connection only the bytes of its body follow (`body`). Clients
that keep connections see the answer's `Connection: close` and open another. `Upgrade` is left out, with which anything
could follow.
"""

import re
from dataclasses import dataclass

from sandpost.egress.body import Body, Chunked, Length

MAX_HEAD = 16384
_MAX_FIELDS = 100
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_LINE = re.compile(rb"(%b{1,20}) ([!\"$-~]+) HTTP/1\.([01])" % _TOKEN)
_FIELD = re.compile(rb"(%b++):([\t -~\x80-\xff]*+)" % _TOKEN)
_NEVER = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)|(?<!\r)\n")
_ABSOLUTE = re.compile(rb"[Hh][Tt][Tt][Pp]://([^/?]*)([/?].*)?")
_HOST = re.compile(rb"([A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?)(?::([0-9]{1,5}))?")
_HOP = frozenset({b"connection", b"http2-settings", b"keep-alive", b"proxy-connection", b"upgrade"})
"""Fields between a client and its next hop."""


class BadHead(Exception):  # noqa: N818 - it says what is wrong
    """A head that is not let pass; the message ends a sentence about it."""

    kind = "malformed_request"


@dataclass(frozen=True, slots=True)
class Head:
    """`host` in lower case; `port` if it was said; `wire` goes to the server in the place of the first `size` bytes."""

    host: str
    port: int | None
    wire: bytes
    size: int
    body: Body


def read_head(buffer: bytes) -> Head | None:
    """Return the head that `buffer` begins with; None if more bytes are needed. Raises `BadHead`."""
    if (found := _NEVER.search(buffer[: _end(buffer)])) is not None:
        raise BadHead(f"its head has the byte 0x{found[0][0]:02x} where none may be")
    end = buffer.find(b"\r\n\r\n")
    if end < 0 or end + 4 > MAX_HEAD:
        if len(buffer) >= MAX_HEAD:
            raise BadHead(f"its head is longer than {MAX_HEAD} bytes")
        return None
    line, *lines = buffer[:end].split(b"\r\n")
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadHead("its first line is not `METHOD TARGET HTTP/1.1`")
    method, target, minor = match.groups()
    if method == b"CONNECT":
        raise BadHead("CONNECT asks for a tunnel")
    if len(lines) > _MAX_FIELDS:
        raise BadHead(f"it has more than {_MAX_FIELDS} header fields")
    fields = [_field(one) for one in lines]
    host = _only(fields, b"host")
    if host is None:
        raise BadHead("it says no Host")
    if (said := _ABSOLUTE.fullmatch(target)) is not None:
        if said[1].lower() != host.lower():
            raise BadHead("its target names another host than Host")
    elif not target.startswith(b"/") and (target, method) != (b"*", b"OPTIONS"):
        raise BadHead("its target does not begin with `/`")
    name = _HOST.fullmatch(host)
    if name is None:
        raise BadHead("its Host is no domain")
    kept = [one for one, (field, _) in zip(lines, fields, strict=True) if field not in _HOP]
    wire = b"\r\n".join((line, *kept, b"Connection: close", b"", b""))
    port = int(name[2]) if name[2] else None
    return Head(name[1].decode("ascii").lower(), port, wire, end + 4, _body(fields, http11=minor == b"1"))


def _end(buffer: bytes) -> int:
    """Return where the head ends, as far as it is there: what follows may be anything."""
    end = buffer.find(b"\r\n\r\n")
    return len(buffer) if end < 0 else end + 4


def _field(line: bytes) -> tuple[bytes, bytes]:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise BadHead("a header field is not `name: value` on one line")
    return match[1].lower(), match[2].strip(b" \t")


def _only(fields: list[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    values = [value for field, value in fields if field == name]
    if len(values) > 1:
        raise BadHead(f"it has more than one {name.decode().title()}")
    return values[0] if values else None


def _body(fields: list[tuple[bytes, bytes]], *, http11: bool) -> Body:
    length, coding = _only(fields, b"content-length"), _only(fields, b"transfer-encoding")
    if coding is not None:
        if coding.lower() != b"chunked" or length is not None or not http11:
            raise BadHead("its body's length can be read in two ways")
        return Chunked()
    if length is not None and (not length.isdigit() or len(length) > 18):
        raise BadHead("its Content-Length is no plain number")
    return Length(int(length or 0))

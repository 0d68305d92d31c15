"""ClientHellos of our making (RFC 8446 section 4.1.2)."""

import os
import struct


def field(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data


def extension(kind: int, data: bytes) -> bytes:
    return struct.pack("!H", kind) + field(2, data)


def sni(name: bytes, kind: int = 0) -> bytes:
    return extension(0, field(2, bytes((kind,)) + field(2, name)))


def handshake(*extensions: bytes, tail: bytes = b"", random: bytes | None = None) -> bytes:
    body = b"\x03\x03" + (random or os.urandom(32)) + field(1, b"s" * 32) + field(2, b"\x0a\x0a\x13\x01\x13\x02")
    body += field(1, b"\0")
    if extensions:
        body += field(2, b"".join(extensions))
    return b"\x01" + field(3, body + tail)


def records(message: bytes, size: int = 16384) -> bytes:
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + field(2, piece) for piece in pieces)


def hello(name: str | None, *, ech: bool = False) -> bytes:
    """Return the bytes that a client sends first, with GREASE (RFC 8701) and a large key share as browsers have."""
    parts = [extension(0x1A1A, b""), extension(51, b"k" * 1216), extension(16, field(2, field(1, b"h2")))]
    if name is not None:
        parts.insert(1, sni(name.encode()))
    if ech:
        parts.append(extension(0xFE0D, b"\0" + b"e" * 100))
    return records(handshake(*parts, random=b"r" * 32))

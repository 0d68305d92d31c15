"""Reads the name in a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3). Pure, bounded, strict.

The hello is read to its last byte: what a server might understand in another way is refused.
"""

import re
from dataclasses import dataclass

MAX_HELLO = 16384
"""Bytes of the handshake message; with a post-quantum key share it has 2 KiB."""
MAX_BYTES = 20480
"""Bytes with the records around it."""
MAX_RECORDS = 32
"""Records that it may be split over; clients use one, and a few split it to hide from simpler readers than this."""
HANDSHAKE = 22
"""The first byte of a connection that speaks TLS."""
_CLIENT_HELLO = 1
_SNI, _ECH, _OLD_ESNI = 0, 0xFE0D, 0xFFCE
_NAME = re.compile(
    rb"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)


class BadHello(Exception):  # noqa: N818 - it says what is wrong
    """A hello that is not let pass. `kind` is the word for figures; the message ends a sentence about it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(slots=True)
class _Cursor:
    """Reads length-prefixed fields; `BadHello` beyond the end."""

    data: bytes
    at: int = 0

    def take(self, length: int) -> bytes:
        end = self.at + length
        if end > len(self.data):
            raise BadHello("malformed_hello", "a field of its ClientHello ends beyond the message")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def field(self, width: int) -> "_Cursor":
        return _Cursor(self.take(self.number(width)))

    def finish(self) -> None:
        if self.at != len(self.data):
            raise BadHello("malformed_hello", "something follows where its ClientHello should end")

    @property
    def left(self) -> int:
        return len(self.data) - self.at


def read_hello(buffer: bytes) -> str | None:
    """Return the name, in lower case, that the ClientHello in `buffer` asks for; None if more bytes are needed.

    Raises `BadHello` as soon as it is certain, however the bytes were split.
    """
    message = bytearray()
    at = 0
    for _ in range(MAX_RECORDS):
        header = buffer[at : at + 5]
        if header[:1] not in {b"", b"\x16"} or header[1:2] not in {b"", b"\x03"}:
            raise BadHello("malformed_hello", "it is no TLS handshake")
        if len(header) < 5:
            break
        length = int.from_bytes(header[3:5], "big")
        if not 0 < length <= MAX_HELLO:
            raise BadHello("malformed_hello", f"a TLS record has {length} bytes")
        piece = buffer[at + 5 : at + 5 + length]
        message += piece
        wanted = _wanted(message)
        if wanted is not None and len(message) >= wanted:
            # Whole; the record may carry nothing else, also not in what is still to come of it.
            if len(message) > wanted or len(piece) < length:
                raise BadHello("malformed_hello", "something follows its ClientHello in the same record")
            return _parse(bytes(message[4:]))
        if len(piece) < length:
            break
        at += 5 + length
    else:
        raise BadHello("malformed_hello", f"its ClientHello is in more than {MAX_RECORDS} records")
    if len(buffer) >= MAX_BYTES:
        raise BadHello("malformed_hello", f"its ClientHello is longer than {MAX_BYTES} bytes")
    return None


def _wanted(message: bytearray) -> int | None:
    """Return the length of the whole handshake message, once that is known."""
    if message and message[0] != _CLIENT_HELLO:
        raise BadHello("malformed_hello", "it begins with something else than a ClientHello")
    if len(message) < 4:
        return None
    length = int.from_bytes(message[1:4], "big")
    if length > MAX_HELLO:
        raise BadHello("malformed_hello", f"its ClientHello is longer than {MAX_HELLO} bytes")
    return 4 + length


def _parse(body: bytes) -> str:
    hello = _Cursor(body)
    hello.take(2 + 32)
    for width, least, most, multiple in ((1, 0, 32, 1), (2, 2, 65534, 2), (1, 1, 255, 1)):
        # Session id, cipher suites, compression methods.
        field = hello.field(width)
        if not least <= field.left <= most or field.left % multiple:
            raise BadHello("malformed_hello", "a field of its ClientHello has a length that it cannot have")
    if not hello.left:
        raise BadHello("no_name", "it says no name (SNI)")
    extensions = hello.field(2)
    hello.finish()
    name: str | None = None
    seen: set[int] = set()
    while extensions.left:
        kind, content = extensions.number(2), extensions.field(2)
        if kind in seen:
            raise BadHello("malformed_hello", f"its ClientHello has extension {kind} twice")
        seen.add(kind)
        if kind in {_ECH, _OLD_ESNI}:
            raise BadHello("hidden_name", "it hides its name (Encrypted Client Hello): switch ECH off in the client")
        if kind == _SNI:
            name = _server_name(content)
    if name is None:
        raise BadHello("no_name", "it says no name (SNI)")
    return name


def _server_name(content: _Cursor) -> str:
    names = content.field(2)
    content.finish()
    kind, name = names.number(1), names.field(2).data
    names.finish()
    if kind != 0 or len(name) > 253 or _NAME.fullmatch(name) is None:
        raise BadHello("malformed_hello", "its name (SNI) is no domain")
    return name.decode("ascii").lower()

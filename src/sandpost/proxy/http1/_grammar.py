"""What heads of requests and of responses have in common (RFC 9110 section 5, RFC 9112 sections 2 to 6).

Only CRLF ends a line. A field line is `token ":" OWS value OWS`; folding, whitespace before the colon and control
characters are refused. Bytes above 127 in values (obs-text) pass as opaque bytes: they can end nothing.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from sandpost.proxy.http1.errors import RuleError

Field = tuple[bytes, bytes]
"""Name in lower case, value without the whitespace around it."""

MAX_FIELDS = 100
"""Field lines in one head or trailer section."""

MAX_LENGTH = 2**63 - 1
"""The longest body that anybody may announce, bytes."""

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_VALUE = rb"[\t -~\x80-\xff]"
_FIELD_LINE = re.compile(rb"(%b++):(%b*+)" % (TOKEN, _VALUE))
_OPTION = re.compile(rb"%b+" % TOKEN)

_NEVER = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)|(?<!\r)\n")
"""What no head contains anywhere. A CR at the very end is not decided yet."""


def refuse_controls(buffer: bytes | bytearray, start: int, end: int) -> None:
    """Raise `RuleError` for the first byte of `buffer[start:end]` that no head may contain.

    It can be asked of a head that is still incomplete; what it finds there is wrong however the head goes on.
    """
    found = _NEVER.search(buffer, start, end)
    if found is None:
        return
    byte = found[0][0]
    if byte == 10:
        raise RuleError("a line ends with LF alone; lines end with CR LF")
    if byte == 13:
        raise RuleError("CR stands without LF; lines end with CR LF")
    raise RuleError(f"the head contains the control character 0x{byte:02x}")


class FieldReader:
    """Reads field lines. `check(name, value)` may refuse a field by `RuleError`.

    Clients repeat most of their lines with every request, so short lines that were accepted are remembered, whole, with
    what they mean: a line that is found needs no second look. The memory is bounded and starts anew when it is full.
    """

    __slots__ = ("_check", "_known")

    MAX_KNOWN = 1024
    MAX_LINE = 160

    def __init__(self, check: Callable[[bytes, bytes], None] = lambda _name, _value: None) -> None:
        self._check = check
        self._known: dict[bytes, Field] = {}

    def read(self, lines: list[bytes]) -> list[Field]:
        """Return the fields of `lines` (without their CRLF) in order; `RuleError` for the first bad one."""
        known = self._known
        return [known.get(line) or self._learn(line) for line in lines]

    def _learn(self, line: bytes) -> Field:
        match = _FIELD_LINE.fullmatch(line)
        if match is None:
            raise RuleError(_why(line))
        name = match[1].lower()
        field = name, match[2].strip(b" \t")
        self._check(*field)
        if len(line) <= self.MAX_LINE and name not in _SECRET:
            if len(self._known) >= self.MAX_KNOWN:
                self._known.clear()
            self._known[line] = field
        return field


_SECRET = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"set-cookie"})
"""Values that are not kept longer than their exchange."""


def _why(line: bytes) -> str:
    if line[:1] in (b" ", b"\t"):
        return "a field is folded over several lines"
    name, colon, _ = line.partition(b":")
    if not colon:
        return "a field line has no colon"
    if not name:
        return "a field has no name"
    if name[-1:] in (b" ", b"\t"):
        return "whitespace stands before the colon of a field"
    return f"`{shown(name)}` cannot be the name of a field"


def shown(text: bytes) -> str:
    """Return the beginning of `text` fit for a message."""
    return ascii(text[:40].decode("latin-1"))[1:-1]


def content_length(value: bytes) -> int:
    """Return the number in a Content-Length, digits only and at most `MAX_LENGTH`."""
    if not value.isdigit():
        raise RuleError("Content-Length is not a plain number")
    if len(value) > 19 or (length := int(value)) > MAX_LENGTH:
        raise RuleError("Content-Length is beyond 2^63-1")
    return length


@lru_cache(maxsize=64)
def connection_options(value: bytes) -> frozenset[bytes]:
    """Return the options of one Connection field, in lower case."""
    options = frozenset(part.strip(b" \t") for part in value.lower().split(b",")) - {b""}
    for option in options:
        if _OPTION.fullmatch(option) is None:
            raise RuleError("Connection is not a list of tokens")
    return options

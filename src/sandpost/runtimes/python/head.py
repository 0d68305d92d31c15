"""The head of a request, as a proxy sends it: strict where a mistake would change what is served. Pure."""

from __future__ import annotations

MAX_HEAD = 128 * 1024
_MAX_REQ_ID = 64
_DIGITS = frozenset("0123456789abcdef")
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_PREFIX = "x-sandpost-"
_VERSIONS = frozenset({"HTTP/1.1", "HTTP/1.0"})
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "expect"})


class MalformedError(Exception):
    """No head of a request."""


class Head:
    """`lines` are names in lower case with their values, the platform's own and `expect` left out."""

    __slots__ = (
        "chunked", "close", "code", "deadline", "expects", "http10", "length", "lines", "method", "modules", "op",
        "req_id", "target", "trace", "upgrade",
    )  # fmt: skip

    def __init__(self, method: str, target: str, *, http10: bool) -> None:
        self.method = method
        self.target = target
        self.http10 = http10
        self.lines: list[tuple[str, str]] = []
        # The platform's. What comes twice is none.
        self.op = self.code = self.req_id = self.trace = self.modules = None  # type: str | None
        self.deadline = 0.0
        """Seconds that its caller waits at most; 0 if that is not said."""
        self.length = -1
        """The content-length, -1 if there is none."""
        self.chunked = False
        self.close = http10
        self.expects = False
        """The client waits for a 100 before it sends the body."""
        self.upgrade = False

    @property
    def has_body(self) -> bool:
        """Whether one follows."""
        return self.chunked or self.length > 0

    def get(self, name: str) -> str:
        """Return the first value of a header, "" if there is none."""
        for found, value in self.lines:
            if found == name:
                return value
        return ""

    def media_type(self) -> str:
        """Return the content type without its parameters."""
        return self.get("content-type").partition(";")[0].strip(" \t").lower()


def parse(text: str) -> Head:
    """Read a head without its empty line. Raises `MalformedError`."""
    first, *rest = text.split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or parts[2] not in _VERSIONS or not parts[1] or not _is_token(parts[0]):
        raise MalformedError("no request line")
    head = Head(parts[0], parts[1], http10=parts[2] == "HTTP/1.0")
    lines = head.lines
    for line in rest:
        name, colon, value = line.partition(":")
        if not colon or not name or name[-1] in " \t" or name[0] in " \t":
            raise MalformedError("no header line")
        name, value = name.lower(), value.strip(" \t")
        if name in _FRAMING:
            _framing(head, name, value)
        elif name.startswith(_PREFIX):
            _ours(head, name, value)
            continue
        if name != "expect":
            lines.append((name, value))
    if head.has_body or head.op != "call":
        # Only calls may be upgrades; what has a body is an ordinary request.
        head.upgrade = False
    return head


def _framing(head: Head, name: str, value: str) -> None:
    if name == "content-length":
        length = int(value) if value.isascii() and value.isdecimal() and len(value) < 20 else -1
        if length < 0 or head.chunked or head.length not in {-1, length}:
            raise MalformedError("a length that is none, or one more")
        head.length = length
    elif name == "transfer-encoding":
        if value.lower() != "chunked" or head.chunked or head.length >= 0:
            raise MalformedError("an unknown transfer encoding, or one more")
        head.chunked = True
    elif name == "connection":
        options = value.lower()
        head.close = "close" in options or (head.http10 and "keep-alive" not in options)
        head.upgrade = "upgrade" in options
    else:
        head.expects = value.lower() == "100-continue"


def _ours(head: Head, name: str, value: str) -> None:
    if name == "x-sandpost-op":
        head.op = value if head.op is None else ""
    elif name == "x-sandpost-code":
        head.code = value if head.code is None else ""
    elif name == "x-sandpost-req":
        head.req_id = value if head.req_id is None else ""
    elif name == "x-sandpost-trace":
        head.trace = value if head.trace is None else ""
    elif name == "x-sandpost-modules":
        head.modules = value if head.modules is None else ""
    elif name == "x-sandpost-deadline" and value.isascii() and value.isdecimal() and len(value) < 12:
        head.deadline = int(value) / 1000


def req_id_of(head: Head) -> str:
    """Return the request's id if it is short printable ASCII, as frames and bodies need it, else ""."""
    text = head.req_id
    if not text or len(text) > _MAX_REQ_ID or not text.isascii() or not text.isprintable() or " " in text:
        return ""
    return text


def frame_id_of(head: Head) -> str:
    """Return what frames say of the request: its id, and the trace that it belongs to if both fit."""
    req_id = req_id_of(head)
    traced = f"{req_id} {head.trace}"
    return traced if req_id and head.trace and traced.isascii() and len(traced) <= _MAX_REQ_ID else req_id


def is_hash(text: str | None) -> bool:
    """Whether it is a SHA-256 in lower-case hexadecimal."""
    return text is not None and len(text) == 64 and _DIGITS.issuperset(text)


def _is_token(text: str) -> bool:
    return bool(text) and _TOKEN.issuperset(text)


def is_name(text: str) -> bool:
    """Whether it can be a header's name."""
    return _is_token(text)


def is_value(text: str) -> bool:
    """Whether it can be a header's value."""
    return not ("\r" in text or "\n" in text or "\0" in text)

"""Heads as they leave the proxy, towards sandboxes and towards clients.

Nothing of one connection's framing reaches the other: hop-by-hop fields (RFC 9110 section 7.6.1, and those that
Connection names) are left out and framing is made anew from the `Body`. Fields beginning `x-sandpost-` are the
platform's alone and dropped when a stranger wrote them. What is rendered is checked once more as a whole, so that
no value, whoever brought it, can begin another line.
"""

import re
from collections.abc import Collection, Sequence
from email.utils import formatdate
from http import HTTPStatus

from sandpost.proxy.http1._grammar import TOKEN, Field, connection_options
from sandpost.proxy.http1.body import CHUNKED, NONE, UNTIL_CLOSE, Body, Kind

_HOP = frozenset(
    {
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_NOT_TO_SANDBOX = _HOP | {b"expect"}
"""The proxy itself answers `Expect`."""

ORIGIN_WIDE = frozenset(
    {
        b"alt-svc",
        b"clear-site-data",
        b"nel",
        b"public-key-pins",
        b"report-to",
        b"reporting-endpoints",
        b"strict-transport-security",
    }
)
"""Fields that make a browser act for a whole origin. All tenants share one, so no program may send them."""
_NOT_TO_CLIENT = _HOP | ORIGIN_WIDE | {b"date"}

_USUAL_OPTIONS = frozenset({b"keep-alive", b"close", b"upgrade", b"Keep-Alive", b"Upgrade"})

STATUS_LINES: dict[int, bytes] = {status: b"HTTP/1.1 %d " % status for status in range(200, 600)} | {
    status.value: b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode()) for status in HTTPStatus
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes | memoryview) -> bytes:
    """Return `data`, which must not be empty, as one chunk."""
    if not data:
        raise ValueError("an empty chunk would end the body: use LAST_CHUNK")
    return b"".join((b"%x\r\n" % len(data), data, b"\r\n"))


def http_date(seconds: float) -> bytes:
    """Return the value of a Date field; render it once a second, not once an answer."""
    return formatdate(seconds, usegmt=True).encode("ascii")


def answer_framing(body: Body, minor: int) -> Body:
    """Return how a response body is framed towards a client of HTTP/1.`minor`.

    `UNTIL_CLOSE` means: as it is, and the connection ends with it.
    """
    if body.kind is Kind.CHUNKED or body.kind is Kind.UNTIL_CLOSE:
        return CHUNKED if minor else UNTIL_CLOSE
    return body


def render_request(
    method: str,
    target: bytes,
    headers: Sequence[Field],
    *,
    body: Body = NONE,
    extra: Sequence[Field] = (),
    drop: Collection[bytes] = (),
    upgrade: bytes | None = None,
    host: bytes = b"localhost",
) -> bytes:
    """Return the head towards a sandbox, HTTP/1.1 and persistent.

    `headers` are the client's; `extra` are ours and stand behind them; `drop` names further fields of the client to
    leave out, in lower case (such as an Authorization that was the platform's). `host` stands in where the client
    sent no Host. `upgrade` asks for that protocol. Raises ValueError if the result would not be one head.
    """
    name = _METHODS.get(method) or _method(method)
    if target[:1] not in _TARGET_BEGINS or b" " in target or not target.isascii():
        raise ValueError("not a target in origin-form")
    lines = [b"%b %b HTTP/1.1" % (name, target)]
    if not _add(lines, headers, _NOT_TO_SANDBOX, drop):
        lines.append(b"host: " + host)
    if body.kind is Kind.LENGTH:
        lines.append(b"content-length: %d" % body.length)
    elif body.kind is Kind.CHUNKED:
        lines.append(b"transfer-encoding: chunked")
    elif body.kind is Kind.UNTIL_CLOSE:
        raise ValueError("a request's body cannot end with the connection")
    if upgrade is not None:
        lines += (b"connection: upgrade", b"upgrade: " + upgrade)
    return _joined(lines, extra)


def render_response(
    status: int,
    headers: Sequence[Field],
    *,
    framing: Body,
    minor: int = 1,
    keep_alive: bool = True,
    method: str = "GET",
    date: bytes | None = None,
    extra: Sequence[Field] = (),
    drop: Collection[bytes] = (),
    upgrade: bytes | None = None,
) -> bytes:
    """Return the head towards a client of HTTP/1.`minor` whose request's method was `method`.

    `framing` comes from `answer_framing`. Status text and Date are ours, whatever the program wrote; a Server field
    passes if the program sent one and is never added. To HEAD and with 304 the program's Content-Length passes, since
    it describes what is not sent. `upgrade` belongs to status 101. `extra` and `drop` as for `render_request`.
    Raises ValueError if the result would not be one head.
    """
    lines = [STATUS_LINES[status]]
    _add(lines, headers, _NOT_TO_CLIENT, drop)
    if date is not None:
        lines.append(b"date: " + date)
    if framing.kind is Kind.LENGTH:
        lines.append(b"content-length: %d" % framing.length)
    elif framing.kind is Kind.CHUNKED:
        if not minor:
            raise ValueError("HTTP/1.0 has no chunks: use answer_framing")
        lines.append(b"transfer-encoding: chunked")
    elif framing.kind is Kind.UNTIL_CLOSE:
        if keep_alive:
            raise ValueError("a body that ends with the connection cannot keep it alive")
    elif method == "HEAD" or status == 304:
        lines += [b"content-length: %d" % int(value) for name, value in headers if name == b"content-length"][:1]
    elif status >= 200 and status != 204:
        lines.append(b"content-length: 0")
    if upgrade is not None:
        lines += (b"connection: upgrade", b"upgrade: " + upgrade)
    elif not keep_alive:
        lines.append(b"connection: close")
    elif not minor:
        lines.append(b"connection: keep-alive")
    return _joined(lines, extra)


_METHODS = {name: name.encode() for name in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")}
_TARGET_BEGINS = (b"/", b"*")
_METHOD = re.compile(TOKEN + rb"{1,20}")


def _method(method: str) -> bytes:
    encoded = method.encode("ascii")
    if _METHOD.fullmatch(encoded) is None:
        raise ValueError("not a method")
    return encoded


def _add(lines: list[bytes], headers: Sequence[Field], never: frozenset[bytes], drop: Collection[bytes]) -> bool:
    """Append the lines of the fields that may go on; return whether Host was among them."""
    begun = len(lines)
    host = False
    for field in headers:
        name = field[0]
        if name in never:
            if name == b"connection" and field[1] not in _USUAL_OPTIONS:
                # What Connection names is hop-by-hop too. Host is not for a client to take away.
                named = connection_options(field[1]) - never - {b"host"}
                if named:
                    del lines[begun:]
                    return _add(lines, headers, never | named, drop)
        elif name not in drop and (name < b"x-sandpost-" or name[:11] != b"x-sandpost-"):
            if name == b"host":
                host = True
            lines.append(b": ".join(field))
    return host


def _joined(lines: list[bytes], extra: Sequence[Field]) -> bytes:
    if extra:
        lines += [b": ".join(field) for field in extra]
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    # Whatever the parts were, between them stand exactly our own line ends, or there is no head.
    ends = len(lines) + 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends or b"\0" in head:
        raise ValueError("a header field contains a line end or NUL")
    return head

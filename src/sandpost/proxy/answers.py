"""Answers that the proxy itself writes. Pure."""

import msgspec

from sandpost.model.errors import MethodNotAllowed, SandboxEnded, SandpostError
from sandpost.proxy import cors
from sandpost.proxy.http1.body import NONE, Body, Kind
from sandpost.proxy.http1.render import render_response

_SOURCE = (b"x-wt-response-source", b"proxy")
_JSON = (b"content-type", b"application/json")
_BLOCKED = "Script generated an unhandled asynchronous exception."


def error_answer(
    error: SandpostError, req_id: str, *, method: str, minor: int, keep_alive: bool, date: bytes, origin: bool
) -> bytes:
    """Return the whole answer that tells `error`."""
    extra = [_JSON, _SOURCE, (b"x-sandpost-req", req_id.encode())]
    if error.retry_after is not None:
        extra.append((b"retry-after", b"%d" % error.retry_after))
    if isinstance(error, MethodNotAllowed):
        # RFC 9110, 15.5.6: what there is must be told.
        extra.append((b"allow", ", ".join(error.details["allow"]).encode()))
    body = error.to_dict(req_id)
    if isinstance(error, SandboxEnded) and error.word == "blocked":
        # What clients of the webtask format have always read of a loop that blocks.
        body |= {"error": _BLOCKED, "name": "Error", "message": "Blocked event loop", "details": error.message}
    return json_answer(
        error.status,
        msgspec.json.encode(body),
        extra,
        method=method,
        minor=minor,
        keep_alive=keep_alive,
        date=date,
        origin=origin,
    )


def json_answer(
    status: int,
    body: bytes,
    extra: list[tuple[bytes, bytes]],
    *,
    method: str,
    minor: int,
    keep_alive: bool,
    date: bytes,
    origin: bool,
) -> bytes:
    """Return a whole answer with `body`; `extra` names its type. To HEAD the body is left out."""
    if origin:
        extra = [*extra, cors.ALLOW_ORIGIN, cors.EXPOSE]
    head = render_response(
        status,
        [],
        framing=Body(Kind.LENGTH, len(body)),
        minor=minor,
        keep_alive=keep_alive,
        method=method,
        date=date,
        extra=extra,
    )
    return head if method == "HEAD" else head + body


def preflight_answer(headers: list[tuple[bytes, bytes]], *, minor: int, keep_alive: bool, date: bytes) -> bytes:
    """Return the answer to a CORS preflight."""
    return render_response(
        204,
        [],
        framing=NONE,
        minor=minor,
        keep_alive=keep_alive,
        method="OPTIONS",
        date=date,
        extra=[*cors.preflight_headers(headers), _SOURCE],
    )

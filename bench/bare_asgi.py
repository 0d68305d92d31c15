"""The reference for Python: what one uvicorn process answers when nothing stands before it."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

_BODY = os.environ.get("ANSWER", "").encode()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Read the request to its end, and answer with what `ANSWER` says."""
    if scope["type"] != "http":
        raise RuntimeError("http alone")
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})

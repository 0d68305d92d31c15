"""ASGI applications (asgi.readthedocs.io, version 3): http here, websockets beside, their lifespan in `lifespan`."""

from __future__ import annotations

import asyncio

from . import failures, frames
from .calls import raised, run_task, settle
from .context import unquote
from .exchange import AnswerError, ClientGoneError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from .calls import Call

VERSION = {"version": "3.0", "spec_version": "2.4"}
_CONTEXT: Any = BaseException.__context__
_DEPTH = 50


class NoAnswerError(RuntimeError):
    """An application returned and had not answered."""


def begin(call: Call) -> None:
    """Have the application serve a call."""
    head = call.exchange.head
    if head.upgrade and head.get("upgrade").lower() == "websocket":
        from .websocket import serve

        run_task(call, serve(call))
    else:
        run_task(call, _Http(call).serve())


def scope_of(call: Call, kind: str, scheme: str) -> dict[str, Any]:
    """Return what an application is told of a connection. Its root is the tenant: `/acme`."""
    head = call.exchange.head
    raw, _, query = head.target.partition("?")
    secure = head.get("x-forwarded-proto").lower() == "https"
    client = head.get("x-forwarded-for").partition(",")[0].strip()
    lifespan = call.program.lifespan
    root = "/" + raw.split("/", 2)[1] if raw.startswith("/") and len(raw) > 1 else ""
    scope: dict[str, Any] = {
        "type": kind,
        "asgi": VERSION.copy(),
        "http_version": "1.0" if head.http10 else "1.1",
        "scheme": f"{scheme}s" if secure else scheme,
        "path": unquote(raw),
        "raw_path": raw.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": unquote(root),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.lines],
        "client": (client, 0) if client else None,
        "server": None,
    }
    if lifespan is not None and lifespan.state is not None:
        scope["state"] = lifespan.state.copy()
    return scope


def text_headers(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Return an application's headers as text."""
    return [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers]


def goes_with_client(call: Call, error: BaseException) -> bool:
    """Whether an application ends with what `send` raises after its client has gone, or with what it made of that."""
    at: BaseException | None = error if issubclass(type(error), Exception) else None
    for _ in range(_DEPTH):
        if at is None or type(at) is ClientGoneError:
            break
        at = _CONTEXT.__get__(at)
    if type(at) is not ClientGoneError:
        return False
    if at is not error:
        # Most often a framework's own word for it; but it may be a mistake in dealing with it, which is not to be lost.
        frames.write(20, call.frame_id, call.failure(failures.SCRIPT_ERROR, error).record)
    return True


class _Http:
    """One request of an application. A head waits for the first part of its body, so that a failure before is told."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._exchange = call.exchange
        self._scope = scope_of(call, "http", "http")
        self._scope["method"] = call.exchange.head.method
        self._head: tuple[int, list[tuple[str, str]]] | None = None
        self._asked = False
        """Whether the end of the body has been given out."""
        self._news: asyncio.Event | None = None

    async def serve(self) -> None:
        call, exchange = self._call, self._exchange
        exchange.body.arrived = self._wake
        try:
            await call.program.main(self._scope, self._receive, self._send)
        except BaseException as error:
            if exchange.gone and goes_with_client(call, error):
                settle(call)
            else:
                raised(call, failures.SCRIPT_ERROR, error)
            return
        if exchange.ended:
            settle(call)
        else:
            silent = NoAnswerError("the application returned before its answer was complete")
            raised(call, failures.SCRIPT_ERROR, silent)

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()

    async def _receive(self) -> dict[str, Any]:
        exchange = self._exchange
        body = exchange.body
        while not self._asked:
            if body.size or (body.finished and not body.discard):
                data = body.take()
                exchange.connection.advance()
                self._asked = body.finished and not body.size
                return {"type": "http.request", "body": data, "more_body": not self._asked}
            if exchange.ended:
                break
            await self._wait()
        while not exchange.ended:
            await self._wait()
        return {"type": "http.disconnect"}

    async def _wait(self) -> None:
        if self._news is None:
            self._news = asyncio.Event()
        self._news.clear()
        # Nothing is fed while nobody asks.
        self._exchange.connection.advance()
        await self._news.wait()

    async def _send(self, message: dict[str, Any]) -> None:
        exchange = self._exchange
        kind = message["type"]
        if exchange.gone:
            raise ClientGoneError("the client has gone")
        if kind == "http.response.start":
            if self._head is not None or exchange.started:
                raise AnswerError("http.response.start was sent before")
            self._head = (message["status"], text_headers(message.get("headers", ())))
        elif kind == "http.response.body":
            if exchange.finished:
                raise AnswerError("the answer has ended")
            last = not message.get("more_body", False)
            data = bytes(message.get("body", b""))
            if not exchange.started:
                if self._head is None:
                    raise AnswerError("http.response.start is to be sent first")
                status, headers = self._head
                told = any(name.lower() == "content-length" for name, _ in headers)
                if last and not told and status not in {204, 304}:
                    headers = [*headers, ("content-length", str(len(data)))]
                exchange.begin(status, headers)
            exchange.write(data)
            if last:
                exchange.end()
            elif exchange.connection.unsent:
                await self._drained()
        else:
            raise AnswerError(f"{kind!r} is no message of an answer")

    async def _drained(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._exchange.connection.when_drained(lambda: None if future.done() else future.set_result(None))
        await future

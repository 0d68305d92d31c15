"""Websockets of ASGI applications: RFC 6455 over the connection of an upgrade request."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections import deque
from hashlib import sha1

from . import failures
from .asgi import NoAnswerError, goes_with_client, scope_of, text_headers
from .body import HIGH_WATER
from .calls import fail, raised, settle
from .exchange import AnswerError, ClientGoneError
from .head import is_name, is_value
from .tunnel import Tunnel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .calls import Call

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
MAX_MESSAGE = 16 * 1024 * 1024
_RESERVED = frozenset({1004, 1005, 1006, 1015})


class ViolationError(Exception):
    """The client breaks the protocol. `code` is what it is told."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def accept_of(key: str) -> str:
    """Return what answers a client's key."""
    return b64encode(sha1(key.encode("latin-1") + _GUID).digest()).decode()  # noqa: S324


def frame(opcode: int, data: bytes) -> bytes:
    """Render one unmasked frame that is a whole message."""
    length = len(data)
    if length < 126:
        return bytes((0x80 | opcode, length)) + data
    if length < 65536:
        return bytes((0x80 | opcode, 126)) + length.to_bytes(2, "big") + data
    return bytes((0x80 | opcode, 127)) + length.to_bytes(8, "big") + data


def _unmask(mask: bytes, data: bytes) -> bytes:
    length = len(data)
    if not length:
        return b""
    whole = int.from_bytes((mask * (length // 4 + 1))[:length], "little")
    return (int.from_bytes(data, "little") ^ whole).to_bytes(length, "little")


class Reader:
    """Frames out of bytes. Pure."""

    def __init__(self) -> None:
        self._buffer = b""
        self._parts: list[bytes] = []
        self._kind = 0
        self._size = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Return the messages and control frames that are whole, each with its opcode. Raises `ViolationError`."""
        self._buffer += data
        found = []
        while (one := self._frame()) is not None:
            final, opcode, payload = one
            if opcode >= _CLOSE:
                if not final or len(payload) > 125:
                    raise ViolationError(1002, "a control frame is fragmented or too long")
                found.append((opcode, payload))
                continue
            if (opcode == _CONTINUATION) != bool(self._kind):
                raise ViolationError(1002, "a message begins within another, or goes on without a beginning")
            self._kind = self._kind or opcode
            self._size += len(payload)
            if self._size > MAX_MESSAGE:
                raise ViolationError(1009, "the message is too long")
            self._parts.append(payload)
            if final:
                found.append((self._kind, b"".join(self._parts)))
                self._parts, self._kind, self._size = [], 0, 0
        return found

    def _frame(self) -> tuple[bool, int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        opcode = first & 15
        if first & 0x70 or opcode not in {_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG}:
            raise ViolationError(1002, "a frame of a kind that was not agreed on")
        if not second & 0x80:
            raise ViolationError(1002, "a client's frame is masked")
        length, at = second & 127, 2
        if length == 126:
            length, at = int.from_bytes(buffer[2:4], "big"), 4
        elif length == 127:
            length, at = int.from_bytes(buffer[2:10], "big"), 10
        if len(buffer) < at:
            return None
        if length > MAX_MESSAGE:
            raise ViolationError(1009, "the message is too long")
        if len(buffer) < at + 4 + length:
            return None
        payload = _unmask(buffer[at : at + 4], buffer[at + 4 : at + 4 + length])
        self._buffer = buffer[at + 4 + length :]
        return bool(first & 0x80), opcode, payload


async def serve(call: Call) -> None:
    """Have the application serve a websocket."""
    socket = _Websocket(call)
    try:
        await call.program.main(socket.scope, socket.receive, socket.send)
    except BaseException as error:
        if socket.over and goes_with_client(call, error):
            settle(call)
        elif socket.accepted and issubclass(type(error), Exception):
            socket.close(1011, "")
            failure = call.failure(failures.SCRIPT_ERROR, error)
            settle(call)
            fail(call, failure)
        else:
            raised(call, failures.SCRIPT_ERROR, error)
        return
    if not socket.answered and not socket.over:
        silent = NoAnswerError("the application returned before it accepted or closed the websocket")
        raised(call, failures.SCRIPT_ERROR, silent)
        return
    settle(call)
    if socket.accepted:
        socket.close(1000, "")


class _Websocket:
    """One websocket. `answered`: the application has accepted or refused it.

    `over`: the application has been told of the end, or is to be.
    """

    def __init__(self, call: Call) -> None:
        self._exchange = call.exchange
        head = call.exchange.head
        self._key = head.get("sec-websocket-key")
        self.scope = scope_of(call, "websocket", "ws")
        told = [part.strip() for part in head.get("sec-websocket-protocol").split(",")]
        self.scope["subprotocols"] = [part for part in told if part]
        self.accepted = False
        self.answered = False
        self._closed = False
        """We have sent a close frame."""
        self.over = False
        self._reader = Reader()
        self._tunnel: Tunnel | None = None
        self._messages: deque[dict[str, Any]] = deque([{"type": "websocket.connect"}])
        self._waiting = 0
        self._news = asyncio.Event()
        call.exchange.body.arrived = self._gone
        self._gone()

    # --- from the client --------------------------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        if self.over:
            return
        try:
            for opcode, payload in self._reader.feed(data):
                self._take(opcode, payload)
        except ViolationError as error:
            self.close(error.code, str(error))
        except UnicodeDecodeError:
            self.close(1007, "no UTF-8")
        if self._waiting >= HIGH_WATER and self._tunnel is not None:
            self._tunnel.hold(True)

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            if self._tunnel is not None:
                self._tunnel.write(frame(_PONG, payload))
        elif opcode == _CLOSE:
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
            if len(payload) == 1 or (len(payload) >= 2 and (code < 1000 or code in _RESERVED)):
                raise ViolationError(1002, "no code of a close")
            reason = payload[2:].decode()
            self._end(code, reason)
            self.close(1000 if code == 1005 else code, "")
        elif opcode != _PONG:
            text = payload.decode() if opcode == _TEXT else None
            self._waiting += len(payload)
            message = {"type": "websocket.receive", "text": text, "bytes": payload if text is None else None}
            self._messages.append(message)
            self._news.set()

    def _end(self, code: int, reason: str) -> None:
        if not self.over:
            self.over = True
            self._messages.append({"type": "websocket.disconnect", "code": code, "reason": reason})
            self._news.set()

    def _gone(self) -> None:
        if self._exchange.ended:
            self._end(1006, "")

    # --- from the application ---------------------------------------------------------------------------------------

    async def receive(self) -> dict[str, Any]:
        """Return the next message."""
        while not self._messages:
            self._news.clear()
            await self._news.wait()
        message = self._messages.popleft()
        if message["type"] == "websocket.receive":
            self._waiting -= len(message["bytes"] or message["text"].encode())
            if self._waiting < HIGH_WATER and self._tunnel is not None and not self.over:
                self._tunnel.hold(False)
        return message

    async def send(self, message: dict[str, Any]) -> None:
        """Take what the application says."""
        kind = message["type"]
        if kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            if self.accepted:
                self.close(message.get("code", 1000), message.get("reason") or "")
            elif not self.answered and not self.over:
                self.answered = True
                self._exchange.begin(403, [("content-length", "0")])
                self._exchange.end()
        elif kind == "websocket.send":
            if not self.accepted:
                raise AnswerError("websocket.accept is to be sent first")
            if self.over or self._tunnel is None:
                raise ClientGoneError("the websocket is closed")
            text = message.get("text")
            opcode, data = (_TEXT, text.encode()) if text is not None else (_BINARY, bytes(message.get("bytes") or b""))
            self._tunnel.write(frame(opcode, data))
            connection = self._exchange.connection
            if connection.unsent:
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                connection.when_drained(lambda: None if future.done() else future.set_result(None))
                await future
        else:
            raise AnswerError(f"{kind!r} is no message of a websocket")

    def _accept(self, message: dict[str, Any]) -> None:
        if self.answered:
            raise AnswerError("the websocket has been accepted or closed before")
        if self.over:
            raise ClientGoneError("the client has gone")
        lines = [("sec-websocket-accept", accept_of(self._key))]
        if (chosen := message.get("subprotocol")) is not None:
            lines.append(("sec-websocket-protocol", chosen))
        for name, value in text_headers(message.get("headers", ())):
            if not is_name(name) or not is_value(value):
                raise AnswerError(f"{name!r} cannot be a header")
            if not name.lower().startswith("x-sandpost-"):
                lines.append((name, value))
        told = "".join(f"{name}: {value}\r\n" for name, value in lines)
        self.answered = self.accepted = True
        self._tunnel = Tunnel(self._exchange, self._received, lambda: self._end(1006, ""))
        self._exchange.connection.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            + told.encode("latin-1")
            + b"\r\n"
        )
        self._tunnel.begin()

    def close(self, code: int, reason: str) -> None:
        """Say goodbye, once, and tell the application too."""
        if self._closed or self._tunnel is None:
            return
        self._closed = True
        self._end(code, reason)
        self._tunnel.write(frame(_CLOSE, code.to_bytes(2, "big") + reason.encode()[:123]))
        self._tunnel.end()

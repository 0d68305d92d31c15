"""uvicorn with what it lacks for us: the peer's uid, typed answers to broken requests, sockets made by us."""

import asyncio
import contextlib
import secrets
import socket
import struct
from collections.abc import Iterator
from typing import Any, cast

import h11
import msgspec
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sandpost.api.app import PEER_UID, REQ_ID
from sandpost.model.errors import MalformedRequest

_CREDENTIALS = struct.Struct("3i")
_KEEP_ALIVE = 60


class Protocol(H11Protocol):
    """One connection; its requests' state carries the uid that the kernel says is at the other end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask the kernel who connected."""
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family == socket.AF_UNIX:
            raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            self.app_state = {**self.app_state, PEER_UID: _CREDENTIALS.unpack(raw)[1]}
        super().connection_made(transport)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is no HTTP like every other error."""
        req_id = secrets.token_hex(8)
        error = MalformedRequest(f"{msg} Check the client, or what stands between it and here.")
        body = msgspec.json.encode(error.to_dict(req_id))
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
            (REQ_ID, req_id),
        ]
        with contextlib.suppress(h11.LocalProtocolError):
            events: list[Any] = [
                h11.Response(status_code=400, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ]
            for event in events:
                self.transport.write(cast("bytes", self.conn.send(event)))
        self.transport.close()


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to its process."""

    def __init__(self, app: Any) -> None:
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE,
        )
        super().__init__(config)

    def end(self, drain: float) -> None:
        """Let `serve` return: no new connections, requests under way get `drain` seconds."""
        self.config.timeout_graceful_shutdown = max(1, int(drain))
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

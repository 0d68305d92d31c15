"""One call of a program, as any caller makes it: a POST to this host's own proxy, its answer read as it comes."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass

import h11

from sandpost.model.host import Host

_READ = 1 << 16
_CONNECT = 5.0
"""Seconds to connect to a proxy on this host."""
MAX_BODY = 1 << 16
"""Bytes that are read of an answer that is not the one that was hoped for."""
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Unanswered(Exception):  # noqa: N818 - it says what is wrong
    """There was no whole answer; the message says how far it came."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an answer. `own`: the program wrote it, not the platform."""

    status: int
    own: bool
    pieces: AsyncIterator[bytes]
    """The body, once; where it is broken off the call ends in `Unanswered`."""


@contextlib.asynccontextmanager
async def call(host: Host, target: str, key: str, program: bytes, timeout: float) -> AsyncIterator[Answer]:  # noqa: ASYNC109 - a deadline over all of it, the reading too
    """POST `program` to `target` and yield the answer; the whole has `timeout` seconds. Raises `Unanswered`."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout):
            async with asyncio.timeout(_CONNECT):
                reader, writer = await asyncio.open_connection(
                    _ANY.get(host.listen_host, host.listen_host), host.listen_port, ssl=_tls(host)
                )
            connection = h11.Connection(our_role=h11.CLIENT)
            writer.write(_request(connection, host, target, key, program))
            await writer.drain()
            head = await _next(connection, reader)
            if not isinstance(head, h11.Response):
                raise Unanswered("the proxy ended the connection without an answer")
            headers = dict(head.headers)
            own = headers.get(b"x-wt-response-source") == b"webtask"
            yield Answer(head.status_code, own, _pieces(connection, reader))
    except TimeoutError as error:
        raise Unanswered("it was not done in time") from error
    except (OSError, h11.RemoteProtocolError) as error:
        raise Unanswered(f"the connection to the proxy broke ({error})") from error
    finally:
        if writer is not None:
            writer.transport.abort()


async def body_of(answer: Answer) -> bytes:
    """Return an answer's body, as much of it as anybody would read."""
    body = b""
    async for piece in answer.pieces:
        body += piece
        if len(body) > MAX_BODY:
            break
    return body[:MAX_BODY]


def _tls(host: Host) -> ssl.SSLContext | None:
    if not host.tls_cert:
        return None
    # To an address of this machine, with a key that is good for one tenant and a moment: the certificate carries the
    # name that clients call, which is not known here.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _request(connection: h11.Connection, host: Host, target: str, key: str, program: bytes) -> bytes:
    name = f"[{host.listen_host}]" if ":" in host.listen_host else host.listen_host
    request = h11.Request(
        method="POST",
        target=target,
        headers=[
            ("host", f"{name}:{host.listen_port}"),
            ("authorization", f"Bearer {key}"),
            ("content-type", "application/javascript"),
            ("content-length", str(len(program))),
            ("connection", "close"),
        ],
    )
    parts = (connection.send(event) for event in (request, h11.Data(data=program), h11.EndOfMessage()))
    return b"".join(part or b"" for part in parts)


async def _pieces(connection: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    # Where it ends before its framing says so, h11 raises.
    while isinstance(event := await _next(connection, reader), h11.Data):
        yield bytes(event.data)


async def _next(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ))
        elif not isinstance(event, h11.InformationalResponse):
            return event

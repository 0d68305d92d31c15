"""Questions by TCP (RFC 7766): what did not fit a datagram. One after another, each connection a task of its own."""

import asyncio
import socket
import struct

from sandpost.egress.asked import Asked
from sandpost.egress.question import MAX_QUERY
from sandpost.egress.ways import Sandbox

MOST_EACH = 16
"""Connections of one tenant."""
_IDLE = 5.0
"""Seconds for the next question to arrive, and for an answer to be taken."""
_QUESTIONS = 64
"""Questions of one connection."""


async def serve(sandbox: Sandbox, sock: socket.socket, asked: Asked) -> None:
    """Answer the questions on one connection, which is closed in the end."""
    loop = asyncio.get_running_loop()
    tenancy = sandbox.tenancy
    try:
        if tenancy.streams >= MOST_EACH:
            return
        tenancy.streams += 1
        try:
            for _ in range(_QUESTIONS):
                async with asyncio.timeout(_IDLE):
                    wire = await _message(sock)
                if not wire:
                    return
                reply = asked.at_once(sandbox, wire, by_tcp=True)
                if not isinstance(reply, bytes):
                    reply = await asked.later(sandbox, reply, by_tcp=True)
                if not reply:
                    return
                async with asyncio.timeout(_IDLE):
                    await loop.sock_sendall(sock, struct.pack("!H", len(reply)) + reply)
        finally:
            tenancy.streams -= 1
    except (TimeoutError, OSError):
        return
    finally:
        sock.close()


async def _message(sock: socket.socket) -> bytes:
    """Return the next message; empty at the end, and for one that is longer than any question."""
    head = await _exactly(sock, 2)
    length = int.from_bytes(head, "big")
    return await _exactly(sock, length) if head and length <= MAX_QUERY else b""


async def _exactly(sock: socket.socket, length: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < length:
        more = await loop.sock_recv(sock, length - len(data))
        if not more:
            return b""
        data += more
    return data

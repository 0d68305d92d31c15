"""What many connections cost a real worker, measured from outside: the table of docs/operation.md says no less."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.memory import own
from support.proxy import Rig, request, run
from support.proxy_process import certificate, process

KiB = 1024
COUNT = 450
"""So many that what the first ones cost the process once, 1 to 4 MB, is little for each."""
PLAIN = 38 * KiB
"""Bytes that one connection costs at most, who has no key."""
SECURE = PLAIN + 112 * KiB
HANDSHAKE = 64 * KiB
REFUSED = request("/acme", method="GET")
FLOOD = REFUSED * 9000
"""More than the kernel and the worker take of one connection."""


@contextlib.asynccontextmanager
async def worker(**settings: Any) -> AsyncIterator[tuple[int, int]]:
    """A worker process of its own; yields its port and its pid."""
    async with Rig(workers=2, max_connections=10_000, head_timeout=60.0, **settings) as rig:
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as sock:
            async with process(rig, sock, 1) as child:
                port: int = sock.getsockname()[1]
                secured = None if not rig.host.tls_cert else untrusting()
                _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=secured)
                writer.close()
                await asyncio.sleep(0.5)
                yield port, child.pid


def untrusting() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


class Sender:
    """A connection that sends as much of its bytes as is taken, and reads nothing."""

    def __init__(self, port: int, data: bytes, secured: ssl.SSLContext | None, stack: contextlib.ExitStack) -> None:
        sock = stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * KiB)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", port))
        self._sock = sock if secured is None else stack.enter_context(secured.wrap_socket(sock))
        self._sock.setblocking(False)
        self._rest = memoryview(data)

    def push(self) -> None:
        """Send on."""
        with contextlib.suppress(OSError):
            while self._rest:
                self._rest = self._rest[self._sock.send(self._rest[: 16 * KiB]) :]


def cost(port: int, pid: int, data: bytes, secured: ssl.SSLContext | None) -> int:
    """Return the bytes that each of many connections costs that send `data` and read nothing."""
    before, most = own(pid), 0
    with contextlib.ExitStack() as stack:
        senders = [Sender(port, data, secured, stack) for _ in range(COUNT)]
        for _ in range(15):
            for sender in senders:
                sender.push()
            time.sleep(0.2)
            most = max(most, own(pid) - before)
    print(f"{most / COUNT / KiB:.1f} KiB each")
    return most // COUNT


def test_unread_answers_of_many_without_a_key_cost_little_more_than_a_head() -> None:
    async def check() -> None:
        async with worker() as (port, pid):
            assert await asyncio.to_thread(cost, port, pid, FLOOD, None) <= PLAIN

    run(check(), 60)


@pytest.mark.parametrize("what", ["silence", "half a hello", "a head", "unread answers"])
def test_connections_with_tls_cost_what_is_said(tmp_path: Path, what: str) -> None:
    cert, key = certificate(tmp_path, "localhost")
    data = {"silence": b"", "half a hello": b"\x16\x03\x01\x02\x00\x01\x00" + bytes(200)}.get(what)

    async def check() -> None:
        async with worker(tls_cert=cert, tls_key=key) as (port, pid):
            if data is not None:
                assert await asyncio.to_thread(cost, port, pid, data, None) <= HANDSHAKE
                return
            sent = FLOOD if what == "unread answers" else b"GET / HTTP/1.1\r\nx: " + b"a" * 31000
            assert await asyncio.to_thread(cost, port, pid, sent, untrusting()) <= SECURE

    run(check(), 60)

"""What a connection makes a worker hold is bounded, and is not held for ever, whoever sends and does not read."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest

from sandpost.proxy.client import Client
from sandpost.proxy.http1.request import parse_request
from sandpost.proxy.plan import check_code_type, make
from sandpost.proxy.reading import READ
from support.proxy import HELLO, Connection, Peer, Request, Rig, Sandbox, answer, at, eventually, request, run, says

KiB = 1024
CALL = at("acme", f"webtask_code={sha256(HELLO).hexdigest()}")
REFUSED = request("/acme", method="GET")
"""What anybody can send: it needs no key to be answered."""


def held(client: Client) -> int:
    """Bytes that a connection holds of what it got and of what it is to send."""
    unsent = 0 if client.transport is None else client.transport.get_write_buffer_size()
    return unsent + len(client._kept) + len(client._buffer)


async def narrow(rig: Rig, stack: contextlib.ExitStack) -> socket.socket:
    """Connect with small buffers in the kernel, so that what is not read waits in the worker."""
    sock = stack.enter_context(socket.socket())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", rig.port))
    sock.setblocking(False)

    def accepted() -> Client | None:
        for client in rig.worker.clients:
            transport = client.transport
            if transport is not None and transport.get_extra_info("peername") == sock.getsockname():
                return client
        return None

    client: Client = await eventually(accepted)
    assert client.transport is not None
    client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return sock


@contextlib.asynccontextmanager
async def leaving(rig: Rig) -> AsyncIterator[contextlib.ExitStack]:
    """Close what was opened, and wait until the worker has seen it."""
    with contextlib.ExitStack() as stack:
        try:
            yield stack
        finally:
            stack.close()
            await eventually(lambda: not [client for client in rig.worker.clients if held(client)])


async def fill(sock: socket.socket, data: bytes, most: int) -> None:
    """Send `data` again and again until it is not taken, `most` bytes of it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            for _ in range(most // len(data)):
                await asyncio.get_running_loop().sock_sendall(sock, data)


@pytest.mark.parametrize("at_once", [True, False], ids=["pipelined", "one by one"])
def test_who_sends_requests_without_a_key_and_does_not_read_makes_it_hold_a_read_and_an_answer(at_once: bool) -> None:
    async def check() -> None:
        async with Rig() as rig, leaving(rig) as stack:
            socks = [await narrow(rig, stack) for _ in range(20)]
            data = REFUSED * (8000 if at_once else 1)
            await asyncio.gather(*(fill(sock, data, 1_000_000) for sock in socks))
            assert len(rig.worker.clients) == 20
            await eventually(lambda: all(client._stalled_at for client in rig.worker.clients))
            assert max(map(held, rig.worker.clients)) <= READ + 4 * KiB + 2 * KiB

    run(check(), 30)


def test_requests_behind_a_call_are_not_read_beyond_a_bound() -> None:
    async def check() -> None:
        async def late(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if b"n=1" in head.line:
                await asyncio.sleep(5)
            await peer.write(answer())

        async with Sandbox(late) as sandbox, Rig() as rig, leaving(rig) as stack:
            rig.controller.places["*"] = sandbox.place
            await rig.call(at("acme"))
            sock = await narrow(rig, stack)
            await fill(sock, request(f"{CALL}&n=1", method="GET") + REFUSED * 8000, 1_000_000)
            client = await eventually(
                lambda: next((one for one in rig.worker.clients if one.handler is not None), None)
            )
            await eventually(lambda: client._kept)
            await asyncio.sleep(0.3)
            assert held(client) <= READ + 4 * KiB

    run(check(), 30)


def test_an_answer_that_is_not_read_holds_no_more_than_two_reads_of_it() -> None:
    async def check() -> None:
        async def flood(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
            await peer.write(b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ncontent-length: 999999999\r\n\r\n")
            await peer.write(bytes(16 << 20))

        async with Sandbox(flood) as sandbox, Rig() as rig, leaving(rig) as stack:
            rig.controller.places["*"] = sandbox.place
            sock = await narrow(rig, stack)
            await asyncio.get_running_loop().sock_sendall(sock, request(at("acme"), HELLO))
            [client] = rig.worker.clients
            await eventually(lambda: client._stalled_at)
            await asyncio.sleep(0.3)
            assert held(client) <= 2 * READ

    run(check(), 30)


def test_a_client_that_takes_a_little_now_and_then_is_ended() -> None:
    async def check() -> None:
        async with Sandbox(says(answer(bytes(60_000)))) as sandbox, Rig(body_timeout=1.5) as rig, leaving(rig) as stack:
            rig.controller.places["*"] = sandbox.place
            sock = await narrow(rig, stack)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(sock, request(at("acme"), HELLO))
            seen = 0
            with contextlib.suppress(ConnectionError):
                # Ten seconds for all of it; each piece lets a little more of it go.
                while piece := await loop.sock_recv(sock, 1200):
                    seen += len(piece)
                    await asyncio.sleep(0.2)
            assert seen < 50_000
            assert not rig.worker.clients

    run(check(), 40)


def test_small_programs_are_remembered_within_a_bound() -> None:
    async def check() -> None:
        async with Rig() as rig:
            worker, kinds = rig.worker, (b"text/plain", b"application/javascript", b"application/typescript")
            for kind in kinds:
                raw = b"POST /acme HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Type: " + kind + b"\r\n\r\n"
                head = parse_request(raw, 4096, 0)
                assert head is not None
                plan = make(head)
                check_code_type(plan)
                for number in range(1000):
                    worker.program_of(plan, b"%16000d" % number)
                    assert sum(len(code) for known in worker._programs.values() for code in known) <= 16 << 20
            assert worker.program_of(plan, b"%16000d" % 999) is worker.program_of(plan, b"%16000d" % 999)

    run(check())


def test_a_connection_reads_on_when_what_it_kept_is_answered() -> None:
    async def check() -> None:
        async with Rig() as rig:
            connection: Connection = await rig.connect()
            count = 5000
            connection.writer.write(REFUSED * count)
            for _ in range(count):
                assert (await connection.answer()).status == 405

    run(check(), 40)

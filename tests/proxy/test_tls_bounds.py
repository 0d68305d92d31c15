"""What holds for connections holds with TLS too, from their first byte on: their number, their time, their memory."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sandpost.proxy.reading import READ
from support.proxy import HELLO, Connection, Rig, Sandbox, answer, at, eventually, request, run, says

KiB = 1024


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("pair")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
         "-out", cert, "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert Path(cert).exists()
    return {"tls_cert": cert, "tls_key": key}


def hello() -> bytes:
    """The first bytes of a handshake."""
    out = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


@contextlib.asynccontextmanager
async def silent(rig: Rig, count: int, data: bytes) -> AsyncIterator[list[Connection]]:
    """Connections that send `data` and then nothing more."""
    made = [Connection(*await asyncio.open_connection("127.0.0.1", rig.port)) for _ in range(count)]
    try:
        for connection in made:
            with contextlib.suppress(ConnectionError):
                await connection.send(data)
        yield made
    finally:
        for connection in made:
            connection.writer.transport.abort()
        await eventually(lambda: not rig.worker.clients)


async def secured(rig: Rig, pair: dict[str, Any], sock: socket.socket | None = None) -> Connection:
    """Make the handshake."""
    trust = ssl.create_default_context(cafile=pair["tls_cert"])
    if sock is not None:
        streams = await asyncio.open_connection(sock=sock, ssl=trust, server_hostname="127.0.0.1", limit=KiB)
    else:
        streams = await asyncio.open_connection("127.0.0.1", rig.port, ssl=trust)
    return Connection(*streams)


async def closed(connection: Connection) -> bool:
    """Whether the other side has ended it."""
    try:
        return await connection.ended()
    except ConnectionError:
        return True


@pytest.mark.parametrize("part", [0, 100], ids=["nothing", "half of the first message"])
def test_connections_whose_handshake_is_not_over_are_counted_bounded_and_ended(pair: dict[str, Any], part: int) -> None:
    async def check() -> None:
        async with Rig(max_connections=5, head_timeout=1.0, **pair) as rig, silent(rig, 8, hello()[:part]) as made:
            await eventually(lambda: rig.worker.counts.accepted == 8)
            await eventually(lambda: len(rig.worker.clients) == 5)
            assert rig.worker.counts.refused_connections == 3
            ended = await asyncio.gather(*(closed(one) for one in made))
            assert all(ended)
            assert not rig.worker.clients
            connection = await secured(rig, pair)
            assert (await connection.call("/health/live", method="GET")).status == 200
            connection.close()

    run(check())


def test_a_worker_that_retires_waits_for_handshakes_and_the_requests_behind_them(pair: dict[str, Any]) -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig(**pair) as rig:
            rig.controller.places["*"] = sandbox.place
            sock = socket.create_connection(("127.0.0.1", rig.port))
            sock.setblocking(False)
            await eventually(lambda: rig.worker.clients)
            rig.worker.retire(10)
            await asyncio.sleep(1.5)
            connection = await secured(rig, pair, sock)
            await asyncio.sleep(0.3)
            assert (await connection.call(at("acme"), HELLO)).status == 200
            connection.close()
            async with asyncio.timeout(4):
                await rig._task

    run(check())


def test_a_handshake_that_goes_nowhere_holds_a_worker_that_retires_no_longer_than_its_time(
    pair: dict[str, Any],
) -> None:
    async def check() -> None:
        async with Rig(head_timeout=30.0, **pair) as rig, silent(rig, 3, hello()[:100]):
            await eventually(lambda: len(rig.worker.clients) == 3)
            rig.worker.retire(1.0)
            async with asyncio.timeout(4):
                await rig._task
            await eventually(lambda: not rig.worker.clients)

    run(check())


def test_who_does_not_read_by_tls_makes_it_hold_no_more_than_a_few_pieces(pair: dict[str, Any]) -> None:
    async def check() -> None:
        async with Sandbox(says(answer(bytes(60_000)))) as sandbox, Rig(**pair) as rig:
            rig.controller.places["*"] = sandbox.place
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", rig.port))
            sock.setblocking(False)
            connection = await secured(rig, pair, sock)
            [client] = rig.worker.clients
            await eventually(lambda: client.transport is not None)
            assert client.transport is not None
            client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            connection.writer.write(request(at("acme"), HELLO) * 2000)
            await eventually(lambda: client._stalled_at)
            await asyncio.sleep(0.5)
            unread = client.transport.get_read_buffer_size()  # type: ignore[attr-defined]
            assert client._unsent() + len(client._kept) + len(client._buffer) + unread <= 3 * READ + 40 * KiB
            connection.writer.transport.abort()
            await eventually(lambda: not rig.worker.clients)

    run(check(), 30)


def test_bodies_of_megabytes_pass_by_tls_both_ways(pair: dict[str, Any]) -> None:
    async def check() -> None:
        body = bytes(range(256)) * 16384
        async with Sandbox(says(answer(body))) as sandbox, Rig(**pair) as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await secured(rig, pair)
            program = HELLO + b" " * 500_000
            for _ in range(2):
                seen = await connection.call(at("acme"), program)
                assert (seen.status, seen.body) == (200, body)
            assert sandbox.loads[0].body == program
            connection.close()
            await eventually(lambda: not rig.worker.clients)

    run(check(), 40)

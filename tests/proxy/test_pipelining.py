"""Requests one behind another on one connection, whenever their bytes come, and clients that go while they send."""

import asyncio
import hashlib
import socket
import struct

import pytest

from support.proxy import HELLO, Connection, Peer, Request, Rig, Sandbox, answer, at, eventually, request, run, says

HASH = hashlib.sha256(HELLO).hexdigest()
CALL = at("acme", f"webtask_code={HASH}")


async def echo(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
    """Answer with the request's number and its body."""
    body = b""
    if b"expect" in head.headers:
        await peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await peer.reader.readexactly(int(head.headers[b"content-length"]))
    await peer.write(answer(head.line.partition(b"n=")[2].partition(b" ")[0] + b" " + body))


async def leaves_body_unread(peer: Peer, head: Request) -> bool:
    """Ask for the call's body and read nothing of it; a call without one is answered, and False."""
    if b"expect" not in head.headers:
        await peer.write(answer())
        return False
    await peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    return True


async def prepared(rig: Rig, sandbox: Sandbox) -> Connection:
    """Make the program known, and every next request of a connection wait a moment for its turn."""
    rig.controller.places["*"] = sandbox.place
    await rig.call(at("acme"))
    loop = asyncio.get_running_loop()
    rig.worker.soon = lambda work: loop.call_later(0.1, work)  # type: ignore[assignment,misc]
    return await rig.connect()


def test_bytes_that_come_between_two_requests_keep_their_place() -> None:
    async def check() -> None:
        async with Sandbox(echo) as sandbox, Rig() as rig:
            connection = await prepared(rig, sandbox)
            body = request(f"{CALL}&n=smuggled", method="GET")
            post = request(f"{CALL}&n=2", body, "POST")
            await connection.send(request(f"{CALL}&n=1", method="GET") + post[: -len(body)])
            assert (await connection.answer()).body == b"1 "
            # The head of the second request is here and waits; now comes its body.
            await connection.send(body)
            assert (await connection.answer()).body == b"2 " + body
            assert not any(b"smuggled" in call.line for call in sandbox.calls)

    run(check())


def test_an_end_between_two_requests_loses_none() -> None:
    async def check() -> None:
        async with Sandbox(echo) as sandbox, Rig() as rig:
            connection = await prepared(rig, sandbox)
            await connection.send(b"".join(request(f"{CALL}&n={n}", method="GET") for n in range(3)))
            assert (await connection.answer()).body == b"0 "
            connection.writer.write_eof()
            assert [(await connection.answer()).body for _ in range(2)] == [b"1 ", b"2 "]
            assert await connection.ended()

    run(check())


def test_a_program_that_its_client_cut_short_behind_another_request_ends_the_connection() -> None:
    async def check() -> None:
        async with Sandbox(echo) as sandbox, Rig() as rig:
            connection = await prepared(rig, sandbox)
            await connection.send(request(f"{CALL}&n=1", method="GET") + request(at("acme"), HELLO)[:-5])
            connection.writer.write_eof()
            assert (await connection.answer()).body == b"1 "
            assert await connection.ended()

    run(check())


@pytest.mark.parametrize("at_once", [True, False], ids=["pipelined", "one by one"])
def test_who_does_not_read_gets_no_further_answers_made(at_once: bool) -> None:
    async def check() -> None:
        body = b"x" * 60_000
        async with Sandbox(says(answer(body))) as sandbox, Rig(body_timeout=10) as rig:
            rig.controller.places["*"] = sandbox.place
            await rig.call(at("acme"))
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", rig.port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 10)
            connection = Connection(reader, writer)
            count = 200
            if at_once:
                await connection.send(request(CALL, method="GET") * count)
            else:
                for _ in range(count):
                    await connection.send(request(CALL, method="GET"))
                    await asyncio.sleep(0.001)
            await asyncio.sleep(0.2)
            [client] = [one for one in rig.worker.clients if one.transport is not None]
            assert client.transport is not None
            assert client.transport.get_write_buffer_size() < 4 * len(body)
            # What the kernel holds, and one beyond.
            assert len(sandbox.calls) < count / 2
            for _ in range(count):
                assert (await connection.answer()).body == body
            writer.close()

    run(check(), 40)


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
def test_a_client_that_goes_while_nobody_reads_its_body_frees_its_call(reset: bool) -> None:
    async def check() -> None:
        noticed = asyncio.Event()

        async def script(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if not await leaves_body_unread(peer, head):
                return
            await eventually(lambda: rig.worker.counts.in_flight == 0, 20)
            noticed.set()

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            await rig.call(at("acme"))
            connection = await rig.connect()
            size = 30_000_000
            connection.writer.write(f"POST {CALL} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode())
            for _ in range(20):
                connection.writer.write(bytes(1 << 20))
            await asyncio.sleep(0.5)
            assert rig.worker.counts.in_flight == 1
            sock = connection.writer.get_extra_info("socket")
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.writer.transport.abort()
            async with asyncio.timeout(6):
                await noticed.wait()
            assert rig.worker.counts.clients_gone == 1

    run(check(), 40)


def test_a_client_whose_body_waits_is_not_taken_for_gone() -> None:
    async def check() -> None:
        go_on = asyncio.Event()

        async def script(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if not await leaves_body_unread(peer, head):
                return
            await go_on.wait()
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            await peer.reader.readexactly(int(head.headers[b"content-length"]))
            await peer.write(answer(b"all of it"))

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            await rig.call(at("acme"))
            connection = await rig.connect()
            sent = asyncio.create_task(connection.send(request(CALL, bytes(20_000_000), "PUT")))
            await asyncio.sleep(4)
            go_on.set()
            assert (await connection.answer()).body == b"all of it"
            await sent

    run(check(), 40)


def test_what_comes_before_an_upgrades_answer_reaches_the_program_however_much_it_is() -> None:
    async def check() -> None:
        size = 300_000

        async def script(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if b"upgrade" not in head.headers:
                await peer.write(answer())
                return
            await asyncio.sleep(0.5)
            await peer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\nconnection: Upgrade\r\n\r\n")
            assert await peer.reader.readexactly(size) == b"x" * size
            await peer.write(b"all of it")

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            await rig.call(at("acme"))
            connection = await rig.connect()
            await connection.send(request(CALL, b"", "GET", "Upgrade: echo", "Connection: Upgrade"))
            sent = asyncio.create_task(connection.send(b"x" * size))
            assert (await connection.head()).status == 101
            assert await connection.reader.readexactly(9) == b"all of it"
            await sent

    run(check())


def test_a_page_may_read_why_its_request_was_refused_by_its_head() -> None:
    async def check() -> None:
        async with Rig() as rig:
            connection = await rig.connect()
            seen = await connection.call(at("acme", "key=other"), HELLO, "POST", "Origin: https://example.com")
            assert (seen.status, seen.json["reason"]) == (400, "malformed_request")
            assert seen.headers["access-control-allow-origin"] == "*"

    run(check())

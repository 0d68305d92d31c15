"""Management requests go to the api as they came; without it they say so, and calls go on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from support.proxy import KEY, Peer, Request, Rig, Sandbox, answer, at, eventually, run, says

Script = Callable[[Peer, Request], Awaitable[None]]


@contextlib.asynccontextmanager
async def api(rig: Rig, script: Script, heads: list[Request]) -> AsyncIterator[None]:
    """A scripted api at the rig's socket."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            request = await peer.head()
            heads.append(request)
            await script(peer, request)
        writer.transport.abort()

    server = await asyncio.start_unix_server(serve, rig.host.api_socket)
    try:
        yield
    finally:
        server.close()


def test_a_management_request_passes_with_its_key_and_body() -> None:
    async def check() -> None:
        async def script(peer: Peer, head: Request) -> None:
            body = await peer.reader.readexactly(int(head.headers.get(b"content-length", b"0")))
            await peer.write(
                b"HTTP/1.1 201 Created\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )

        heads: list[Request] = []
        async with Rig() as rig, api(rig, script, heads):
            connection = await rig.connect()
            for n in range(3):
                body = bytes([65 + n]) * 300_000
                seen = await connection.call(f"/api/tenants/acme?a={n}", body, "PUT", f"Authorization: Bearer {KEY}")
                assert (seen.status, seen.body) == (201, body)
            assert heads[0].line == b"PUT /api/tenants/acme?a=0 HTTP/1.1"
            assert heads[0].headers[b"authorization"] == f"Bearer {KEY}".encode()
            assert heads[0].headers[b"x-forwarded-for"] == b"127.0.0.1"
            assert (await connection.call("/logs/tenant/acme?key=K", b"", "GET")).status == 201
            assert heads[-1].line == b"GET /logs/tenant/acme?key=K HTTP/1.1"

    run(check())


def test_a_stream_of_records_passes_as_it_comes_until_the_client_goes() -> None:
    async def check() -> None:
        ended = asyncio.Event()

        async def script(peer: Peer, _head: Request) -> None:
            await peer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            with contextlib.suppress(OSError):
                for _ in range(500):
                    peer.writer.write(b"3\r\n{}\n\r\n")
                    await peer.writer.drain()
                    await asyncio.sleep(0.01)
            ended.set()

        async with Rig() as rig, api(rig, script, []):
            connection = await rig.connect()
            await connection.send(b"GET /logs/system HTTP/1.1\r\nHost: a\r\n\r\n")
            await connection.head()
            for _ in range(5):
                assert await connection.reader.readuntil(b"{}\n\r\n")
            connection.close()
            async with asyncio.timeout(3):
                await ended.wait()
            await eventually(lambda: not rig.worker.exchanges)

    run(check())


def test_the_reader_of_a_stream_may_rest_for_longer_than_that_of_another_answer() -> None:
    async def check() -> None:
        size = 32 << 20

        def script(kind: bytes) -> Script:
            async def answer_much(peer: Peer, _head: Request) -> None:
                head = b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\ncontent-length: %d\r\n\r\n" % size
                await peer.write(head)
                for _ in range(size >> 16):
                    await peer.write(bytes(1 << 16))
                await peer.reader.read()

            return answer_much

        for kind, complete in ((b"application/json", False), (b"application/x-ndjson", True)):
            async with Rig(body_timeout=0.5) as rig, api(rig, script(kind), []):
                connection = await rig.connect()
                await connection.send(b"GET /logs/system HTTP/1.1\r\nHost: a\r\n\r\n")
                connection.reader._transport.pause_reading()  # type: ignore[attr-defined]
                # Twice as long, and the worker's look at the time besides.
                await asyncio.sleep(2.5)
                connection.reader._transport.resume_reading()  # type: ignore[attr-defined]
                got = 0
                with contextlib.suppress(OSError):
                    await connection.head()
                    while got < size and (data := await connection.reader.read(1 << 20)):
                        got += len(data)
                assert (got == size) is complete

    run(check())


def test_a_worker_that_stops_waits_for_calls_and_not_for_streams() -> None:
    async def check() -> None:
        async def stream(peer: Peer, head: Request) -> None:
            kind = b"application/x-ndjson" if b"/logs/" in head.line else b"application/json"
            await peer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{}\n\r\n"
            )
            await peer.reader.read()

        async with Rig() as rig, api(rig, stream, []):
            streaming, other = await rig.connect(), await rig.connect()
            await streaming.send(b"GET /logs/tenant/acme HTTP/1.1\r\nHost: a\r\n\r\n")
            await other.send(b"GET /api/status HTTP/1.1\r\nHost: a\r\n\r\n")
            for connection in (streaming, other):
                await connection.reader.readuntil(b"{}\n\r\n")
            rig.worker.retire(6)
            assert await streaming.ended()
            assert len(rig.worker.exchanges) == 1
            assert not other.reader.at_eof()

    run(check())


def test_without_the_api_its_routes_name_it_and_calls_go_on() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            seen = await connection.call("/api/tenants", b"", "GET")
            assert (seen.status, seen.json["component"], seen.headers["retry-after"]) == (503, "api", "1")
            assert "api" in seen.json["message"]
            assert (await connection.call(at("acme"), b"return 1")).status == 200

    run(check())


def test_an_api_that_ends_in_the_middle_is_a_502() -> None:
    async def check() -> None:
        async def script(peer: Peer, _head: Request) -> None:
            peer.writer.transport.abort()

        async with Rig() as rig, api(rig, script, []):
            seen = await rig.call("/api/tenants", b"", "GET")
            assert (seen.status, seen.json["reason"]) == (502, "bad_gateway")

    run(check())

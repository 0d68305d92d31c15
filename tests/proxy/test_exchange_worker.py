"""Streams both ways, odd clients, upgrades: the exchange as a client sees it."""

import asyncio
import hashlib
from collections.abc import Callable

import pytest

from sandpost.proxy.program import examine
from support.proxy import HELLO, Peer, Request, Rig, Sandbox, answer, at, eventually, request, run, says

HASH = hashlib.sha256(HELLO).hexdigest()


async def known(rig: Rig, tenant: str) -> str:
    """Make the program known; return the target of calls by its hash."""
    assert (await rig.call(at(tenant))).headers["x-sandpost-code"] == HASH
    return at(tenant, f"webtask_code={HASH}")


async def echo(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
    """Answer with method and body."""
    body = b""
    if b"expect" in head.headers:
        await peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.headers.get(b"transfer-encoding") == b"chunked":
            body = await peer.chunks()
        else:
            body = await peer.reader.readexactly(int(head.headers[b"content-length"]))
    whole = answer(head.line.split()[0] + b" " + body)
    await peer.write(whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head.line.startswith(b"HEAD") else whole)


async def rests(sent: Callable[[], int]) -> None:
    """Wait until no more is sent."""
    before = 0
    while not before or sent() != before:
        before = sent()
        await asyncio.sleep(0.4)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_known_code_takes_any_method(method: str) -> None:
    async def check() -> None:
        async with Sandbox(echo) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            target = await known(rig, "acme")
            assert (await rig.call(target, b"", method)).body == method.encode() + b" "
            assert (await rig.call(target, b"abc", method)).body == method.encode() + b" abc"

    run(check())


@pytest.mark.parametrize("method", ["FOO", "get", "Post", "PRI"])
def test_a_method_that_no_program_can_be_called_with_is_a_typed_405(method: str) -> None:
    async def check() -> None:
        async with Sandbox(echo) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            target = await known(rig, "acme")
            seen = await connection.call(target, b"", method)
            assert (seen.status, seen.json["reason"], seen.json["fault"]) == (405, "method_not_allowed", "caller")
            assert method in seen.json["message"]
            assert {"GET", "POST", "PROPFIND"} <= set(seen.headers["allow"].split(", "))
            assert seen.headers["x-wt-response-source"] == "proxy"
            assert (await connection.call(target, b"", "GET")).body == b"GET "
            assert len(sandbox.calls) == 2

    run(check())


def test_head_204_and_304_have_no_body_and_keep_the_connection() -> None:
    async def check() -> None:
        answers = [
            b"HTTP/1.1 204 No Content\r\nx-sandpost-wire: 1\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nx-sandpost-wire: 1\r\netag: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ncontent-length: 1000\r\n\r\n",
            answer(b"last"),
        ]

        async def script(_sandbox: Sandbox, peer: Peer, _head: Request) -> None:
            await peer.write(answers.pop(0))

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            seen = await connection.call(at("acme"), HELLO)
            assert seen.status == 204
            assert "content-length" not in seen.headers
            target = at("acme", f"webtask_code={HASH}")
            assert (await connection.call(target, b"", "GET")).status == 304
            seen = await connection.call(target, b"", "HEAD")
            assert (seen.status, seen.headers["content-length"]) == (200, "1000")
            assert (await connection.call(target, b"", "GET")).body == b"last"

    run(check())


def test_bodies_stream_both_ways_in_any_framing() -> None:
    async def check() -> None:
        async with Sandbox(echo) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            target = await known(rig, "acme")
            data = bytes(range(256)) * 4096
            assert (await rig.call(target, data, "PUT")).body == b"PUT " + data
            connection = await rig.connect()
            await connection.send(f"PUT {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            for at_byte in range(0, len(data), 100_000):
                part = data[at_byte : at_byte + 100_000]
                await connection.send(b"%x\r\n%b\r\n" % (len(part), part))
            await connection.send(b"0\r\nx-trailer: 1\r\n\r\n")
            assert (await connection.answer()).body == b"PUT " + data
            assert b"x-trailer" not in sandbox.calls[-1].headers
            assert (await connection.call(target, b"again", "PUT")).body == b"PUT again"

    run(check())


def test_events_pass_as_they_come_and_trailers_are_dropped() -> None:
    async def check() -> None:
        go_on = asyncio.Event()

        async def script(_sandbox: Sandbox, peer: Peer, _head: Request) -> None:
            await peer.write(
                b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            await peer.write(b"9\r\ndata: 1\n\n\r\n")
            await go_on.wait()
            await peer.write(b"9\r\ndata: 2\n\n\r\n0\r\nx-evil: trailer\r\n\r\n")

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            await connection.send(request(at("acme"), HELLO))
            assert (await connection.head()).headers["content-type"] == "text/event-stream"
            async with asyncio.timeout(5):
                assert await connection.reader.readuntil(b"data: 1\n\n\r\n")
            go_on.set()
            rest = await connection.reader.readuntil(b"0\r\n\r\n")
            assert b"data: 2" in rest
            assert b"x-evil" not in rest
            # The connection is good for another call.
            await connection.send(request(at("acme"), HELLO))
            assert (await connection.head()).status == 200

    run(check())


def test_an_old_client_gets_no_chunks() -> None:
    async def check() -> None:
        chunked = b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"
        async with Sandbox(says(chunked)) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            await connection.send(
                f"POST {at('acme')} HTTP/1.0\r\nContent-Length: {len(HELLO)}\r\n\r\n".encode() + HELLO
            )
            seen = await connection.rest()
            assert seen.endswith(b"\r\n\r\nabcd")
            assert b"chunked" not in seen

    run(check())


def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    async def check() -> None:
        running = 0

        async def script(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            nonlocal running
            running += 1
            assert running == 1
            number = int(head.line.split(b"n=")[1].split()[0])
            await asyncio.sleep(0.05 - 0.01 * number)
            running -= 1
            await peer.write(answer(b"%d" % number))

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            await connection.send(b"".join(request(at("acme", f"n={n}"), HELLO) for n in range(5)))
            connection.writer.write_eof()
            assert [(await connection.answer()).body for _ in range(5)] == [b"%d" % n for n in range(5)]
            assert await connection.ended()

    run(check())


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_request_may_come_in_any_pieces(size: int) -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            data = request(at("acme"), HELLO) + request(at("acme"), HELLO)
            for start in range(0, len(data), size):
                await connection.send(data[start : start + size])
                if start % 4 == 0:
                    await asyncio.sleep(0)
            assert [(await connection.answer()).status for _ in range(2)] == [200, 200]

    run(check())


def test_expect_continue_is_answered_when_the_body_is_wanted() -> None:
    async def check() -> None:
        async with Sandbox(echo) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            head = (
                f"POST {at('acme')} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {len(HELLO)}\r\n\r\n"
            )
            await connection.send(head.encode())
            assert (await connection.head()).status == 100
            await connection.send(HELLO)
            assert (await connection.answer()).status == 200
            # By hash: it is the runtime that wants the body.
            target = at("acme", f"webtask_code={HASH}")
            await connection.send(
                f"PUT {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n".encode()
            )
            assert (await connection.head()).status == 100
            await connection.send(b"abc")
            assert (await connection.answer()).body == b"PUT abc"
            # Refused before the body was sent: the client never sends it.
            await connection.send(
                b"POST /acme?key=wrong HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
            )
            seen = await connection.answer()
            assert (seen.status, seen.headers["connection"]) == (403, "close")

    run(check())


def test_a_half_closed_client_that_waits_gets_its_answer() -> None:
    async def check() -> None:
        async def script(_sandbox: Sandbox, peer: Peer, _head: Request) -> None:
            await asyncio.sleep(1.2)
            await peer.write(answer(b"late"))

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            await connection.send(request(at("acme"), HELLO))
            connection.writer.write_eof()
            assert (await connection.answer()).body == b"late"
            assert await connection.ended()

    run(check())


@pytest.mark.parametrize("answered", ["nothing", "a head", "a stream"])
def test_a_client_that_goes_away_frees_its_call_and_the_program_notices(answered: str) -> None:
    async def check() -> None:
        noticed = asyncio.Event()

        async def script(_sandbox: Sandbox, peer: Peer, _head: Request) -> None:
            if answered != "nothing":
                await peer.write(b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ntransfer-encoding: chunked\r\n\r\n")
            if answered == "a stream":
                await peer.write(b"4\r\nhere\r\n")
            assert await peer.reader.read() == b""
            noticed.set()

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            await connection.send(request(at("acme"), HELLO))
            if answered != "nothing":
                await connection.head()
            else:
                await eventually(lambda: sandbox.calls)
            if answered == "a stream":
                await connection.reader.readuntil(b"here")
            connection.close()
            async with asyncio.timeout(10):
                await noticed.wait()
            assert rig.worker.counts.in_flight == 0
            assert rig.worker.quota.in_flight("acme") == 0

    run(check())


def test_a_slow_reader_holds_the_program_and_not_memory() -> None:
    async def check() -> None:
        sent = 0
        total = 64 << 20

        async def script(_sandbox: Sandbox, peer: Peer, _head: Request) -> None:
            nonlocal sent
            await peer.write(b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ncontent-length: %d\r\n\r\n" % total)
            while sent < total:
                await peer.write(bytes(1 << 20))
                sent += 1 << 20

        async with Sandbox(script) as sandbox, Rig(body_timeout=10) as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await connection.send(request(at("acme"), HELLO))
            await rests(lambda: sent)
            assert sent < total / 2
            buffered = sum(
                client.transport.get_write_buffer_size() for client in rig.worker.clients if client.transport
            )
            assert buffered < 1 << 20
            connection.writer.transport.resume_reading()  # type: ignore[attr-defined]
            await connection.head()
            await connection.reader.readexactly(total)

    run(check())


def test_a_slow_program_holds_the_sender_and_not_memory() -> None:
    async def check() -> None:
        go_on = asyncio.Event()
        total = 64 << 20

        async def script(_sandbox: Sandbox, peer: Peer, _head: Request) -> None:
            await peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await go_on.wait()
            await peer.reader.readexactly(total)
            await peer.write(answer(b"all of it"))

        async with Sandbox(echo) as first, Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places |= {"first": first.place, "acme": sandbox.place}
            await known(rig, "first")
            rig.worker.codes._keep("acme", examine(HELLO, None))
            connection = await rig.connect()
            target = at("acme", f"webtask_code={HASH}")
            connection.writer.write(f"PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {total}\r\n\r\n".encode())
            sent = 0

            async def send() -> None:
                nonlocal sent
                while sent < total:
                    await connection.send(bytes(1 << 20))
                    sent += 1 << 20

            sender = asyncio.create_task(send())
            await rests(lambda: sent)
            assert sent < total / 2
            go_on.set()
            await sender
            assert (await connection.answer()).body == b"all of it"

    run(check())


def test_an_answer_before_the_bodys_end_is_passed_on() -> None:
    async def check() -> None:
        async def script(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if b"expect" in head.headers:
                await peer.write(answer(b"no need", "413 Too Large"))
            else:
                await peer.write(answer())

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            target = await known(rig, "acme")
            connection = await rig.connect()
            await connection.send(
                f"PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n".encode() + bytes(1000)
            )
            seen = await connection.answer()
            assert (seen.status, seen.body, seen.headers["connection"]) == (413, b"no need", "close")
            assert await connection.ended()
            assert (await rig.call(at("acme"))).status == 200

    run(check())


def test_an_upgraded_connection_is_the_programs_until_it_is_idle() -> None:
    async def check() -> None:
        async def script(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if head.headers.get(b"upgrade") != b"websocket":
                await peer.write(answer())
                return
            assert head.headers[b"connection"] == b"upgrade"
            await peer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: x\r\n\r\nhello"
            )
            while data := await peer.reader.read(65536):
                await peer.write(data.upper())

        async with Sandbox(script) as sandbox, Rig(limits={"upgrade_idle": 1.5}) as rig:
            rig.controller.places["*"] = sandbox.place
            target = await known(rig, "acme")
            connection = await rig.connect()
            await connection.send(
                f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n".encode()
            )
            seen = await connection.head()
            assert (seen.status, seen.headers["upgrade"], seen.headers["sec-websocket-accept"]) == (
                101,
                "websocket",
                "x",
            )
            assert await connection.reader.readexactly(5) == b"hello"
            for _ in range(4):
                last = asyncio.get_running_loop().time()
                await connection.send(b"abc" * 10_000)
                assert await connection.reader.readexactly(30_000) == b"ABC" * 10_000
                await asyncio.sleep(0.5)
            assert rig.worker.counts.tunnels == 1
            assert await connection.ended()
            assert 1.4 < asyncio.get_running_loop().time() - last < 5
            assert rig.worker.counts.tunnels == 0
            assert rig.worker.quota.in_flight("acme") == 0

    run(check())

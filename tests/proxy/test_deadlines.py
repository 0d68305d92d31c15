"""Deadlines, blocked loops and slow clients: every wait ends, and the right side is told."""

import asyncio
import socket
from hashlib import sha256

import pytest

from sandpost.model.messages import Hit
from support.proxy import HELLO, Peer, Request, Rig, Sandbox, Suspect, answer, at, eventually, request, run, says


async def hang(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
    """Never answer."""
    await peer.reader.read()


def test_the_deadline_is_a_504_that_names_limit_and_setting() -> None:
    async def check() -> None:
        async with Sandbox(hang) as sandbox, Rig(limits={"deadline": 1.0}) as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            began = asyncio.get_running_loop().time()
            seen = await connection.call(at("acme"), HELLO)
            assert 0.95 < asyncio.get_running_loop().time() - began < 3
            assert (seen.status, seen.json["reason"], seen.json["fault"]) == (504, "deadline", "code")
            assert "limits.deadline" in seen.json["message"]
            assert "1s" in seen.json["message"]
            # The loop answers its probe: nobody is suspected, and the sandbox goes on.
            await asyncio.sleep(1.5)
            assert not rig.controller.all(Suspect)
            assert not sandbox.open or len(sandbox.open) == 1

    run(check())


def test_the_sandbox_is_told_how_long_the_caller_waits() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig(limits={"deadline": 1.5}) as rig:
            rig.controller.places["*"] = sandbox.place
            seen = await rig.call(at("acme"), HELLO, "POST", "X-Sandpost-Deadline: 9999999")
            assert seen.status == 200
            assert [call.headers[b"x-sandpost-deadline"] for call in sandbox.calls] == [b"1500"]

    run(check())


def test_a_sandbox_that_is_silent_after_a_deadline_is_reported() -> None:
    async def check() -> None:
        async def block(sandbox: Sandbox, _peer: Peer, _request: Request) -> None:
            sandbox.silent = True

        async with Sandbox(block) as sandbox, Rig(limits={"deadline": 1.0}) as rig:
            rig.controller.places["*"] = sandbox.place
            began = asyncio.get_running_loop().time()
            assert (await rig.call(at("acme"))).status == 504
            suspect, *_ = await eventually(lambda: rig.controller.all(Suspect))
            assert suspect.kind == "deadline"
            # A second for the call, and one for the loop to show that it turns.
            assert 1.9 < asyncio.get_running_loop().time() - began < 4

    run(check())


def test_a_blocked_loop_is_reported_while_its_calls_run() -> None:
    async def check() -> None:
        async def block(sandbox: Sandbox, _peer: Peer, _request: Request) -> None:
            sandbox.silent = True

        async with Sandbox(block) as sandbox, Rig(limits={"blocked_after": 2.0}) as rig:
            rig.controller.places["*"] = sandbox.place
            began = asyncio.get_running_loop().time()
            call = asyncio.create_task(rig.call(at("acme")))
            [suspect, *_] = await eventually(lambda: rig.controller.all(Suspect), 8)
            assert suspect.kind == "loop"
            assert suspect.silent_for >= 2.0
            assert 2.9 < asyncio.get_running_loop().time() - began < 6
            rig.controller.gone(suspect.sandbox_id, "blocked")
            assert (await call).json["message"] == "Blocked event loop"

    run(check())


def test_a_call_that_could_have_used_its_cpu_seconds_is_looked_at_with_those_beside_it() -> None:
    async def check() -> None:
        async with Sandbox(hang) as sandbox, Rig(limits={"cpu_seconds": 1.0, "cpu": 2.0}) as rig:
            rig.controller.places["*"] = sandbox.place
            calls = [asyncio.create_task(rig.call(at("acme"))) for _ in range(3)]
            await eventually(lambda: len(sandbox.calls) == 3)
            [suspect, *_] = await eventually(lambda: rig.controller.all(Suspect))
            assert (suspect.kind, suspect.calls) == ("cpu", 3)
            assert 0.5 <= suspect.silent_for < 3
            rig.controller.gone(suspect.sandbox_id, "cpu", setting="limits.cpu_seconds", limit=1.0)
            for call in calls:
                seen = await call
                assert (seen.status, seen.json["reason"], seen.json["setting"]) == (500, "cpu", "limits.cpu_seconds")

    run(check())


def test_a_call_that_fails_says_which_limits_were_met_meanwhile() -> None:
    async def check() -> None:
        async with Sandbox(hang) as sandbox, Rig(limits={"deadline": 1.0}) as rig:
            rig.controller.places["*"] = sandbox.place
            calls = [asyncio.create_task(rig.call(at("acme")))]
            await eventually(lambda: sandbox.calls)
            [sandbox_id] = rig.controller.routes
            rig.controller.send(Hit(sandbox_id=sandbox_id, text="pids: 64 reached"))
            assert (await calls[0]).json["limits_met"] == ["pids: 64 reached"]
            # What was met before a call is not its business.
            assert "limits_met" not in (await rig.call(at("acme"))).json

    run(check())


def test_a_loop_that_answers_again_is_not_suspected() -> None:
    async def check() -> None:
        async def busy(sandbox: Sandbox, peer: Peer, _request: Request) -> None:
            await asyncio.sleep(2.5)
            await peer.write(answer(b"done"))

        async with Sandbox(busy) as sandbox, Rig(limits={"blocked_after": 1.0}) as rig:
            rig.controller.places["*"] = sandbox.place
            assert (await rig.call(at("acme"))).body == b"done"
            assert not rig.controller.all(Suspect)

    run(check())


def test_an_answer_whose_head_is_out_is_broken_off_at_the_deadline() -> None:
    async def check() -> None:
        async def trickle(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
            await peer.write(b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ntransfer-encoding: chunked\r\n\r\n")
            while True:
                await peer.write(b"1\r\nx\r\n")
                await asyncio.sleep(0.1)

        async with Sandbox(trickle) as sandbox, Rig(limits={"deadline": 1.0}) as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            await connection.send(request(at("acme"), HELLO))
            seen = await connection.rest()
            assert b"1\r\nx\r\n" in seen
            assert not seen.endswith(b"0\r\n\r\n")
            await eventually(lambda: rig.worker.counts.in_flight == 0)

    run(check())


def test_an_old_client_is_reset_rather_than_told_a_false_end() -> None:
    async def check() -> None:
        async def half(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
            await peer.write(
                b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"
            )
            await asyncio.sleep(0.2)
            peer.writer.close()

        async with Sandbox(half) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            await connection.send(
                f"POST {at('acme')} HTTP/1.0\r\nContent-Length: {len(HELLO)}\r\n\r\n".encode() + HELLO
            )
            with pytest.raises(ConnectionResetError):
                await connection.rest()

    run(check())


def test_a_wait_for_a_sandbox_ends_too() -> None:
    async def check() -> None:
        async with Rig(limits={"deadline": 1.0}) as rig:
            rig.controller.silent = True
            seen = await rig.call(at("acme"))
            assert (seen.status, seen.json["reason"]) == (503, "unavailable")
            assert "controller" in seen.json["message"]
            assert rig.worker.quota.in_flight("acme") == 0

    run(check())


def test_slow_heads_and_bodies_are_told_408() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig(head_timeout=0.5, body_timeout=0.5) as rig:
            rig.controller.places["*"] = sandbox.place
            slow = await rig.connect()
            await slow.send(b"POST /acme HTTP/1.1\r\nHost: a\r\n")
            seen = await slow.answer()
            assert (seen.status, seen.json["reason"]) == (408, "request_timeout")
            assert await slow.ended()
            slow = await rig.connect()
            await slow.send(f"POST {at('acme')} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc".encode())
            seen = await slow.answer()
            assert (seen.status, seen.headers["connection"]) == (408, "close")
            silent = await rig.connect()
            assert await silent.ended()

    run(check())


def test_a_client_that_drips_its_head_does_not_hold_on() -> None:
    async def check() -> None:
        async with Rig(head_timeout=0.6) as rig:
            slow = await rig.connect()
            began = asyncio.get_running_loop().time()
            for byte in b"POST /acme HTTP/1.1\r\nHost: " + b"a" * 200:
                slow.writer.write(bytes([byte]))
                await asyncio.sleep(0.03)
                if slow.reader.at_eof() or slow.reader._buffer:  # type: ignore[attr-defined]
                    break
            assert (await slow.answer()).status == 408
            assert asyncio.get_running_loop().time() - began < 4, "it dripped to its end"

    run(check())


def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig(keep_alive=1.5) as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            for _ in range(4):
                assert (await connection.call(at("acme"), HELLO)).status == 200
                await asyncio.sleep(0.5)
            assert await connection.ended()

    run(check())


def test_a_client_that_does_not_read_is_ended() -> None:
    async def check() -> None:
        async def flood(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
            await peer.write(b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ncontent-length: 999999999\r\n\r\n")
            while not peer.writer.is_closing():
                await peer.write(bytes(1 << 20))

        async with Sandbox(flood) as sandbox, Rig(body_timeout=0.7) as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await connection.send(request(at("acme"), HELLO))
            await eventually(lambda: rig.worker.counts.in_flight == 1)
            await eventually(lambda: rig.worker.counts.in_flight == 0, 5)
            assert not rig.worker.clients

    run(check())


def test_an_answer_whose_body_was_not_asked_for_is_read_to_its_end_however_slowly() -> None:
    async def check() -> None:
        async def early(_sandbox: Sandbox, peer: Peer, _request: Request) -> None:
            await peer.write(answer(bytes(60_000)))

        async with Sandbox(early) as sandbox, Rig(body_timeout=3) as rig:
            rig.controller.places["*"] = sandbox.place
            await rig.call(at("acme"))
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", rig.port))
            sock.setblocking(False)
            loop = asyncio.get_running_loop()

            def accepted() -> list[asyncio.Transport]:
                transports = [client.transport for client in rig.worker.clients if client.transport is not None]
                return [one for one in transports if one.get_extra_info("peername") == sock.getsockname()]

            own = await eventually(accepted)
            # So that what is not read waits in the worker.
            own[0].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            target = at("acme", f"webtask_code={sha256(HELLO).hexdigest()}")
            head = f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n"
            await loop.sock_sendall(sock, head.encode() + b"x" * 1000)
            seen = 0
            # Four seconds, two above the time that a client has for the end of an answer.
            while piece := await loop.sock_recv(sock, 4096):
                seen += len(piece)
                await asyncio.sleep(0.25)
            sock.close()
            assert seen > 60_000

    run(check())


def test_connections_beyond_the_limit_are_told_so() -> None:
    async def check() -> None:
        async with Rig(max_connections=2) as rig:
            _ = [await rig.connect() for _ in range(2)]
            await asyncio.sleep(0.05)
            third = await rig.connect()
            seen = await third.answer()
            assert (seen.status, seen.json["reason"]) == (503, "unavailable")
            assert "max_connections" in seen.json["message"]

    run(check())

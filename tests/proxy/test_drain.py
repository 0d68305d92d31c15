"""Renewal and stop of a worker: no request is lost, idle connections live on, streams are cut and counted."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sandpost.ipc import Channel, Listener
from sandpost.model.messages import (
    GiveListeners,
    Hello,
    Listen,
    Listeners,
    Ready,
    Reload,
    Retire,
    ToSupervisor,
    Unlisten,
)
from sandpost.proxy.quota import Quota
from sandpost.proxy.worker import Worker
from support.proxy import HELLO, Connection, Peer, Request, Rig, Sandbox, answer, at, eventually, request, run, says
from support.proxy_process import certificate, process


def listener(port: int = 0) -> socket.socket:
    """A listening socket that several workers can share a port with."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(128)
    sock.setblocking(False)
    return sock


@contextlib.contextmanager
def supervisor(rig: Rig, heard: list[object], fds: list[int]) -> Iterator[Listener[ToSupervisor]]:
    """A scripted supervisor."""

    def take(_channel: Channel[ToSupervisor], message: ToSupervisor, got: list[int]) -> None:
        heard.append(message)
        fds.extend(got)

    made: Listener[ToSupervisor] = Listener(
        rig.host.supervisor_socket, ToSupervisor, take, lambda _: None, admit=lambda _: True
    )
    try:
        yield made
    finally:
        made.close()


def tell(made: "Listener[ToSupervisor]", message: msgspec.Struct, fds: list[int] | None = None) -> None:
    """Send to the one child that is connected."""
    for channel in made.channels:
        channel.send(message, fds or [])


def test_a_process_serves_and_stops_by_sigterm() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            sock = listener()
            async with process(rig, sock, 1) as child:
                reader, writer = await asyncio.open_connection("127.0.0.1", sock.getsockname()[1])
                connection = Connection(reader, writer)
                assert (await connection.call(at("acme"), HELLO)).status == 200
                child.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(child.wait, 10) == 0
                # The rig's own worker has taken the connection over.
                assert (await connection.call(at("acme"), HELLO)).status == 200
                assert rig.worker.counts.taken_over == 1
                connection.close()
            sock.close()

    run(check())


def test_a_renewal_fails_no_call_and_keeps_idle_connections() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig(workers=2) as rig:
            rig.controller.places["*"] = sandbox.place
            sock = listener()
            port = sock.getsockname()[1]
            answered, stopping = 0, False

            async def load(pause: float) -> None:
                """One keep-alive client: reconnects only where the server said so."""
                nonlocal answered
                connection: Connection | None = None
                while not stopping:
                    if connection is None:
                        connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
                    seen = await connection.call(at("acme"), HELLO)
                    assert seen.status == 200
                    answered += 1
                    if seen.headers.get("connection") == "close":
                        connection.close()
                        connection = None
                    await asyncio.sleep(pause)
                if connection is not None:
                    connection.close()

            heard: list[object] = []
            with supervisor(rig, heard, []) as boss:
                async with process(rig, sock) as old:
                    # The rig's own worker says so, too.
                    await eventually(lambda: heard.count(Ready()) == 2)
                    sleepers = [Connection(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(40)]
                    for each in sleepers:
                        assert (await each.call(at("acme"), HELLO)).status == 200
                    clients = [asyncio.create_task(load(pause)) for pause in (0, 0.001, 0.003, 0.01)]
                    await asyncio.sleep(0.2)
                    [former] = [channel for channel in boss.channels if channel.peer.pid == old.pid]
                    async with process(rig, sock) as new:
                        await eventually(lambda: heard.count(Ready()) == 3)
                        former.send(Retire(timeout=5))
                        assert await asyncio.to_thread(old.wait, 10) == 0
                        before = answered
                        # Those that slept through it are served by the new worker, on the same connections.
                        for each in sleepers:
                            assert (await each.call(at("acme"), HELLO)).status == 200
                        await eventually(lambda: answered > before)
                        stopping = True
                        await asyncio.gather(*clients)
                        for each in sleepers:
                            each.close()
                        assert new.poll() is None
            sock.close()
            assert answered + 80 == len(sandbox.calls), "a call was lost or ran twice"

    run(check(), 40)


def test_streams_finish_within_the_timeout_and_are_cut_and_counted_after_it() -> None:
    async def check() -> None:
        async def stream(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            await peer.write(b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(5 if b"short" in head.line else 1000):
                await peer.write(b"1\r\nx\r\n")
                await asyncio.sleep(0.1)
            await peer.write(b"0\r\n\r\n")

        async with Sandbox(stream) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            short, long = await rig.connect(), await rig.connect()
            await short.send(request(at("acme", "short=1"), HELLO))
            await long.send(request(at("acme"), HELLO))
            await short.head()
            await long.head()
            retired_at = asyncio.get_running_loop().time()
            rig.worker.retire(2.0)
            assert (await short.reader.readuntil(b"0\r\n\r\n")).count(b"x") == 5
            assert not (await long.rest()).endswith(b"0\r\n\r\n")
            assert 1.9 < asyncio.get_running_loop().time() - retired_at < 5
            await rig._task
            assert rig.worker.counts.streams_cut == 1
            with pytest.raises(ConnectionRefusedError):
                await rig.connect()

    run(check())


def test_a_worker_alone_answers_what_is_on_its_way_and_then_closes() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            assert (await connection.call(at("acme"), HELLO)).status == 200
            rig.worker.retire(3)
            await asyncio.sleep(0.3)
            seen = await connection.call(at("acme"), HELLO)
            assert (seen.status, seen.headers["connection"]) == (200, "close")
            assert await connection.ended()

    run(check())


def test_the_supervisors_orders() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            heard: list[object] = []
            fds: list[int] = []
            with supervisor(rig, heard, fds) as boss:
                await eventually(lambda: Ready() in heard)
                assert isinstance(heard[0], Hello)
                # A neighbour's socket, for as long as that one is dead.
                neighbour = listener()
                port = neighbour.getsockname()[1]
                tell(boss, Listen(index=1), [neighbour.fileno()])
                connection = Connection(*await asyncio.open_connection("127.0.0.1", port))
                assert (await connection.call(at("acme"), HELLO)).status == 200
                connection.close()
                tell(boss, GiveListeners())
                given = await eventually(lambda: [m for m in heard if isinstance(m, Listeners)])
                assert given[0].indices == [0, 1]
                sockets = [socket.socket(fileno=fd) for fd in fds]
                assert {sock.getsockname()[1] for sock in sockets} == {rig.port, port}
                for sock in sockets:
                    sock.close()
                tell(boss, Unlisten(index=1))
                await eventually(lambda: 1 not in rig.worker._servers)
                # Nothing was lost for whoever connects meanwhile: the neighbour accepts it.
                waiting = Connection(*await asyncio.open_connection("127.0.0.1", port))
                await asyncio.sleep(0.1)
                accepted, _ = neighbour.accept()
                accepted.close()
                waiting.close()
                neighbour.close()

    run(check())


def test_tls_and_its_certificate_taken_up_anew(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "first")

    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig(tls_cert=cert, tls_key=key) as rig:
            rig.controller.places["*"] = sandbox.place

            async def call() -> str:
                trust = ssl.create_default_context(cafile=cert)
                trust.check_hostname = False
                connection = Connection(*await asyncio.open_connection("127.0.0.1", rig.port, ssl=trust))
                for _ in range(2):
                    assert (await connection.call(at("acme"), HELLO)).status == 200
                peer = connection.writer.get_extra_info("peercert")
                connection.close()
                await connection.writer.wait_closed()
                return str(dict(pair[0] for pair in peer["subject"])["commonName"])

            assert await call() == "first"
            assert sandbox.calls[-1].headers[b"x-forwarded-proto"] == b"https"
            path = rig.host.path("host.json")
            rig.worker._path = path
            second = certificate(tmp_path, "second")
            os.rename(second[0], cert)
            os.rename(second[1], key)
            Path(path).write_bytes(msgspec.json.encode(rig.host))
            heard: list[object] = []
            with supervisor(rig, heard, []) as boss:
                await eventually(lambda: Ready() in heard)
                former = rig.worker.host
                tell(boss, Reload())
                await eventually(lambda: rig.worker.host is not former)
            assert await call() == "second"
            # A certificate that is no good is said, and the former one stays.
            Path(cert).write_text("rubbish")
            rig.worker.reload()
            Path(cert).write_text("")

    run(check())


def test_a_worker_that_stopped_has_left_its_column(tmp_path: Path) -> None:
    async def check() -> None:
        async with Rig() as rig:
            folder = rig.host.path("tables")
            assert isinstance(rig.worker, Worker)
            rig.worker.retire(0.1)
            await rig._task
            for each in [Quota(folder, 1) for _ in range(2)]:
                each.close()

    run(check())

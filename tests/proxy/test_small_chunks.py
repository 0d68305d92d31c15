"""Bodies in chunks of a byte: whole, in order, and a turn of the event loop takes no more than its share of them."""

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator

import pytest

from sandpost.proxy.http1.body import BodyReader, Kind, Piece
from support.proxy import HELLO, Peer, Request, Rig, Sandbox, answer, at, eventually, request, run, says

HASH = hashlib.sha256(HELLO).hexdigest()
SMALL = bytes(range(256)) * 80
WIRE = b"".join(b"1\r\n%c\r\n" % byte for byte in SMALL) + b"0\r\n\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\ntransfer-encoding: chunked\r\n\r\n"
SHARE = 2 * 1024
"""The end of what was read before and the beginning of what comes next may fall into one turn."""


class Turns:
    """Counts the turns of the running loop, and the bytes of content that bodies in chunks gave in each."""

    def __init__(self) -> None:
        self.number = 0
        self.given: Counter[int] = Counter()
        self._loop = asyncio.get_running_loop()
        self._count()

    def _count(self) -> None:
        self.number += 1
        self._handle = self._loop.call_soon(self._count)

    def stop(self) -> None:
        self._handle.cancel()


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Turns]]:
    """What is put into the list counts."""
    counting: list[Turns] = []
    feed = BodyReader.feed

    def counted(reader: BodyReader, data: bytes) -> list[Piece]:
        before = reader.received
        pieces = feed(reader, data)
        for one in counting if reader._kind is Kind.CHUNKED else ():
            one.given[one.number] += reader.received - before
        return pieces

    monkeypatch.setattr(BodyReader, "feed", counted)
    yield counting
    for one in counting:
        one.stop()


def test_an_answer_is_whole_and_its_connection_serves_on(turns: list[Turns]) -> None:
    async def check() -> None:
        async with Sandbox(says(HEAD + WIRE)) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            turns.append(Turns())
            connection = await rig.connect()
            for _ in range(3):
                assert (await connection.call(at("acme"), HELLO)).body == SMALL
            assert sandbox.connections == 1
            assert sum(turns[0].given.values()) >= 3 * len(SMALL)
            assert max(turns[0].given.values()) <= SHARE

    run(check())


@pytest.mark.parametrize(("end", "whole"), [(b"0\r\n\r\n", True), (b"", False), (b"zz\r\n", False)])
def test_an_answer_whose_connection_ends_behind_it_is_whole_or_broken_off(
    turns: list[Turns], end: bytes, whole: bool
) -> None:
    async def check() -> None:
        async def script(_sandbox: Sandbox, peer: Peer, _head: Request) -> None:
            await peer.write(HEAD + WIRE.removesuffix(b"0\r\n\r\n") + end)
            peer.writer.close()

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            turns.append(Turns())
            connection = await rig.connect()
            await connection.send(request(at("acme"), HELLO))
            if whole:
                assert (await connection.answer()).body == SMALL
            else:
                assert not (await connection.rest()).endswith(b"0\r\n\r\n")
            assert max(turns[0].given.values()) <= SHARE

    run(check())


def test_an_answer_that_has_come_when_its_sandbox_ends_is_whole(turns: list[Turns]) -> None:
    async def check() -> None:
        rigs: list[Rig] = []

        async def script(_sandbox: Sandbox, peer: Peer, _head: Request) -> None:
            await peer.write(HEAD + WIRE)
            [rig] = rigs
            rig.controller.gone(next(iter(rig.controller.routes)), "exit")

        async with Sandbox(script) as sandbox, Rig() as rig:
            rigs.append(rig)
            rig.controller.places["*"] = sandbox.place
            turns.append(Turns())
            assert (await rig.call(at("acme"))).body == SMALL
            assert max(turns[0].given.values()) <= SHARE

    run(check())


def test_a_request_is_whole_and_its_connection_serves_on(turns: list[Turns]) -> None:
    async def check() -> None:
        async def echo(_sandbox: Sandbox, peer: Peer, head: Request) -> None:
            if b"expect" in head.headers:
                await peer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                await peer.write(answer(await peer.chunks()))
            else:
                await peer.write(answer())

        async with Sandbox(echo) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            assert (await rig.call(at("acme"))).status == 200
            turns.append(Turns())
            connection = await rig.connect()
            head = f"PUT {at('acme', f'webtask_code={HASH}')} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            for _ in range(2):
                await connection.send(head.encode() + WIRE)
                assert (await connection.answer()).body == SMALL
            # Two at once: what stands behind the first body is the next request.
            await connection.send((head.encode() + WIRE) * 2)
            assert (await connection.answer()).body == SMALL
            assert (await connection.answer()).body == SMALL
            assert max(turns[0].given.values()) <= SHARE

    run(check())


@pytest.mark.parametrize("closes", [False, True])
def test_a_program_is_whole(turns: list[Turns], closes: bool) -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            turns.append(Turns())
            code = HELLO + b"\n//" + b"x" * 20_000
            wire = b"".join(b"1\r\n%c\r\n" % byte for byte in code) + b"0\r\n\r\n"
            connection = await rig.connect()
            await connection.send(
                f"POST {at('acme')} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + wire
            )
            if closes:
                connection.writer.write_eof()
            seen = await connection.answer()
            assert (seen.status, seen.headers["x-sandpost-code"]) == (200, hashlib.sha256(code).hexdigest())
            if not closes:
                assert (await connection.call(at("acme"), HELLO)).status == 200
            assert max(turns[0].given.values()) <= SHARE

    run(check())


def test_who_leaves_meanwhile_ends_the_call(turns: list[Turns]) -> None:
    async def check() -> None:
        left = asyncio.Event()

        async def script(_sandbox: Sandbox, peer: Peer, _head: Request) -> None:
            await peer.write(HEAD)
            # What is written to a connection that has ended raises.
            with contextlib.suppress(RuntimeError, OSError):
                while True:
                    await peer.write(WIRE.removesuffix(b"0\r\n\r\n"))
            left.set()

        async with Sandbox(script) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            connection = await rig.connect()
            await connection.send(request(at("acme"), HELLO))
            await connection.head()
            connection.writer.transport.abort()
            async with asyncio.timeout(5):
                await left.wait()
            await eventually(lambda: not rig.worker.exchanges)

    run(check())


def test_a_load_that_is_answered_so_is_refused() -> None:
    async def check() -> None:
        async with Sandbox(says(answer())) as sandbox, Rig() as rig:
            rig.controller.places["*"] = sandbox.place
            sandbox.load_answer = HEAD.replace(b"200 OK", b"400 Bad Request") + WIRE
            assert (await rig.call(at("acme"))).status == 502

    run(check())

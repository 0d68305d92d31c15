"""The warm-up call against runtimes that do not behave."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable

import pytest

from sandpost.controller import warmup
from sandpost.controller.warmup import warm
from sandpost.model.errors import EngineError
from sandpost.model.wire import ANSWER


def meet(behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object], patience: float = 1.0) -> None:
    async def work() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await reader.readuntil(b"\r\n\r\n")
            behave(reader, writer)

        writers: list[asyncio.StreamWriter] = []
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            try:
                await warm("127.0.0.1", server.sockets[0].getsockname()[1], patience=patience)
            finally:
                for writer in writers:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()

    asyncio.run(work())


def test_an_answer_in_pieces_is_accepted() -> None:
    def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        for number, byte in enumerate(ANSWER + b"connection: keep-alive\r\n\r\n"):
            loop.call_later(number / 1000, writer.write, bytes([byte]))

    meet(behave)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 204 No Content\r\nx-sandpost-wire: 2\r\n\r\n", "another wire"),
        (b"HTTP/1.1 500 Internal Server Error\r\nx-sandpost-wire: 1\r\n\r\n", "another wire"),
        (b"HTTP/1.1 204", "closed"),
        (b"", "closed"),
    ],
)
def test_another_answer_is_a_failure(answer: bytes, said: str) -> None:
    def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    with pytest.raises(EngineError, match=said):
        meet(behave)


@pytest.mark.parametrize("event", ["a byte", "the end of all writers"])
def test_the_first_try_waits_for_word_from_inside(event: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmup, "_BOOT", 10)
    told, tells = os.pipe()
    began = time.monotonic()

    def speak() -> None:
        if event == "a byte":
            os.write(tells, b"1")
        os.close(tells)

    async def work() -> None:
        asyncio.get_running_loop().call_later(0.1, speak)
        tries: list[float] = []

        def wanted() -> bool:
            tries.append(time.monotonic() - began)
            return False

        with pytest.raises(EngineError, match="ended before"):
            await warm("127.0.0.1", 1, ready=told, wanted=wanted)
        assert 0.1 <= tries[0] < 5

    try:
        asyncio.run(work())
    finally:
        os.close(told)


def test_a_runtime_that_says_nothing_is_asked_all_the_same() -> None:
    told, tells = os.pipe()
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:

            async def work() -> None:
                waiting = asyncio.create_task(warm("127.0.0.1", server.getsockname()[1], ready=told))
                accepted, _ = await asyncio.wait_for(asyncio.to_thread(server.accept), 5)
                with accepted:
                    accepted.sendall(ANSWER)
                    await waiting

            asyncio.run(work())
    finally:
        os.close(told)
        os.close(tells)


def test_silence_ends_with_the_patience() -> None:
    begun = time.monotonic()
    with pytest.raises(EngineError, match=r"within 0\.2 s"):
        meet(lambda _, __: None, patience=0.2)
    assert time.monotonic() - begun < 5


def test_nobody_listening_is_waited_for_as_long_as_the_sandbox_lives() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        wanted = iter([True] * 5)
        with pytest.raises(EngineError, match="ended before"):
            asyncio.run(warm("127.0.0.1", port, wanted=lambda: next(wanted, False)))

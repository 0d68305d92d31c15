"""Channels between processes: messages stay whole, descriptors stay with them, nothing is left open."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sandpost.ipc import Channel, Connector, Listener
from sandpost.model.messages import (
    FromController,
    Held,
    Hello,
    Hold,
    Route,
    Table,
    ToController,
    ToSupervisor,
)

Runner = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Runner:
    def runner(coroutine: Coroutine[Any, Any, None]) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else None
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(asyncio.wait_for(coroutine, 10))

    return runner


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_messages_arrive_whole_and_in_order(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        got: list[Any] = []
        done = asyncio.Event()

        def on_message(_channel: Channel[Any], message: Any, fds: list[int]) -> None:
            assert fds == []
            got.append(message)
            if len(got) == 2001:
                done.set()

        listener: Listener[Any] = Listener(
            str(tmp_path / "s"), ToController, on_message, lambda _: None, admit=lambda peer: peer.uid == os.getuid()
        )
        connector: Connector[Any] = Connector(
            str(tmp_path / "s"),
            FromController,
            lambda *_: None,
            greet=lambda channel: channel.send(Hello(part="proxy", index=3, pid=os.getpid())),
        )
        # More than a socket's buffer takes at once: the rest waits in the channel's queue.
        for seq in range(2000):
            assert connector.send(Hello(part="proxy", index=seq, pid=1))
        await done.wait()
        assert got[0] == Hello(part="proxy", index=3, pid=os.getpid())
        assert [message.index for message in got[1:]] == list(range(2000))
        connector.close()
        listener.close()
        assert not (tmp_path / "s").exists()

    run(scenario())


def test_descriptors_travel_with_their_message(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        before = open_descriptors()
        answered = asyncio.Event()

        def on_message(channel: Channel[Any], message: Any, fds: list[int]) -> None:
            if isinstance(message, Hold):
                assert len(fds) == 3
                for number, fd in enumerate(fds):
                    assert os.read(fd, 10) == b"%d" % number
                    os.close(fd)
                channel.send(Held(sandbox_id=message.sandbox_id))

        listener: Listener[Any] = Listener(
            str(tmp_path / "s"), ToSupervisor, on_message, lambda _: None, admit=lambda _: True
        )
        connector: Connector[Any] = Connector(
            str(tmp_path / "s"), Held, lambda *_: answered.set(), greet=lambda channel: None
        )
        pipes = [os.pipe() for _ in range(3)]
        for number, (_, write) in enumerate(pipes):
            os.write(write, b"%d" % number)
        assert connector.send(Hold(sandbox_id="ab", held_at=0.0), [read for read, _ in pipes])
        for read, write in pipes:
            os.close(read)
            os.close(write)
        await answered.wait()
        connector.close()
        listener.close()
        await asyncio.sleep(0.05)
        assert open_descriptors() == before

    run(scenario())


def test_a_stranger_is_not_admitted(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        listener: Listener[Any] = Listener(
            str(tmp_path / "s"),
            ToController,
            lambda *_: None,
            lambda _: None,
            admit=lambda peer: peer.uid != os.getuid(),
        )
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.connect(str(tmp_path / "s"))
        sock.settimeout(5)
        assert await asyncio.get_running_loop().run_in_executor(None, sock.recv, 10) == b""
        sock.close()
        listener.close()

    run(scenario())


@pytest.mark.parametrize("packet", [b"\xff\x00rubbish", b"\x81\xa4type\xa7Unknown", b"x" * 200_000])
def test_rubbish_ends_the_connection(run: Runner, tmp_path: Path, packet: bytes) -> None:
    async def scenario() -> None:
        closed = asyncio.Event()
        listener: Listener[Any] = Listener(
            str(tmp_path / "s"), ToController, lambda *_: None, lambda _: closed.set(), admit=lambda _: True
        )
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.connect(str(tmp_path / "s"))
        sock.send(packet)
        await closed.wait()
        assert not listener.channels
        sock.close()
        listener.close()

    run(scenario())


def test_a_connector_finds_a_listener_that_comes_back(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        greeted = asyncio.Queue[int]()
        lost = asyncio.Queue[int]()
        connector: Connector[Any] = Connector(
            str(tmp_path / "s"),
            FromController,
            lambda *_: None,
            greet=lambda _: greeted.put_nowait(1),
            on_lost=lambda: lost.put_nowait(1),
        )
        assert not connector.send(Hello(part="proxy", pid=1))
        for _ in range(2):
            listener: Listener[Any] = Listener(
                str(tmp_path / "s"), ToController, lambda *_: None, lambda _: None, admit=lambda _: True
            )
            await greeted.get()
            assert connector.connected
            listener.close()
            await lost.get()
        connector.close()

    run(scenario())


def test_a_message_that_is_too_large_is_refused_at_the_sender(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        listener: Listener[Any] = Listener(
            str(tmp_path / "s"), ToController, lambda *_: None, lambda _: None, admit=lambda _: True
        )
        connector: Connector[Any] = Connector(
            str(tmp_path / "s"), FromController, lambda *_: None, greet=lambda _: None
        )
        route = Route(sandbox_id="ab", tenant="t", host="198.18.0.1", port=8000)
        with pytest.raises(ValueError, match="send it in parts"):
            connector.send(Table(routes=[route] * 5000, last=True))
        assert connector.connected
        connector.close()
        listener.close()

    run(scenario())


def test_a_new_listener_takes_the_name_over_and_the_old_one_leaves_it(run: Runner, tmp_path: Path) -> None:
    async def scenario() -> None:
        path = str(tmp_path / "s")
        first: Listener[Any] = Listener(path, ToController, lambda *_: None, lambda _: None, admit=lambda _: True)
        second: Listener[Any] = Listener(path, ToController, lambda *_: None, lambda _: None, admit=lambda _: True)
        first.close()
        connector: Connector[Any] = Connector(path, FromController, lambda *_: None, greet=lambda _: None)
        assert connector.connected
        connector.close()
        second.close()

    run(scenario())

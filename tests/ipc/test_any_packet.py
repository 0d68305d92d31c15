"""Whatever a process is sent by another one: a message, or the end of that connection, with nothing left open."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given

from sandpost.ipc.channel import UNREADABLE, Channel
from sandpost.model import messages
from support.corpus import lines, mutated
from support.drawn_messages import UNIONS, drawn

PACKETS = lines(Path(__file__).with_name("corpus") / "packets.hex")


@pytest.mark.parametrize("union", UNIONS)
@given(mutated(PACKETS))
def test_any_bytes_are_a_message_or_are_unreadable(union: str, packet: bytes) -> None:
    kind = getattr(messages, union)
    try:
        found = msgspec.msgpack.decode(packet, type=kind)
    except UNREADABLE:
        return
    assert isinstance(found, kind)
    # What was taken is said again as it was taken.
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=kind) == found


@pytest.mark.parametrize("union", UNIONS)
def test_every_message_is_read_back_as_it_was_written(union: str) -> None:
    kind = getattr(messages, union)

    @given(drawn(kind))
    def check(message: msgspec.Struct) -> None:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=kind) == message

    check()


@pytest.mark.parametrize("packet", PACKETS)
def test_a_packet_that_is_unreadable_ends_its_connection_and_leaves_no_descriptor(packet: bytes) -> None:
    try:
        message = msgspec.msgpack.decode(packet, type=messages.ToController)
    except UNREADABLE:
        message = None
    got: list[Any] = []

    async def scenario() -> None:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        closed = asyncio.Event()
        before = len(os.listdir("/proc/self/fd"))

        def take(_channel: Channel[Any], taken: Any, fds: list[int]) -> None:
            got.append(taken)
            for fd in fds:
                os.close(fd)
            closed.set()

        channel: Channel[Any] = Channel(ours, messages.ToController, take, lambda _: closed.set())
        reader, writer = os.pipe()
        socket.send_fds(theirs, [packet], [reader, writer])
        os.close(reader)
        os.close(writer)
        await asyncio.wait_for(closed.wait(), 5)
        assert complaints == []
        assert channel.closed == (message is None)
        channel.close()
        theirs.close()
        assert len(os.listdir("/proc/self/fd")) == before - 2

    asyncio.run(scenario())
    assert got == ([] if message is None else [message])

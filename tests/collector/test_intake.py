"""What the platform's own processes write, on its way to a bus that has no room."""

import asyncio
import socket
from collections.abc import Sequence
from typing import cast

import msgspec
from structlog.testing import capture_logs

from sandpost.bus.contract import Batch, Writer
from sandpost.collector.counts import Counts
from sandpost.collector.intake import Intake
from sandpost.model import messages as m
from sandpost.model.host import Users


class Bus:
    def __init__(self) -> None:
        self.room = 0
        self.taken: list[Batch] = []

    def append(self, batches: Sequence[Batch]) -> None:
        self.taken += batches


def test_what_waits_for_the_bus_when_the_collector_ends_is_told() -> None:
    async def body(room: int) -> list[int]:
        bus = Bus()
        intake = Intake(
            cast("Writer", bus), Users(proxy=1, api=2, collector=3, egress=4, gid=5),
            counts=Counts(), room=lambda _: bus.room, lose=lambda _stream, _lines: None,
        )  # fmt: skip
        read, write = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        read.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        intake.take(read)
        for stream in ("acme", "other"):
            write.send(msgspec.msgpack.encode(m.Records(stream=stream, count=2, at=1.0, lines=b'{"msg":"x"}\n' * 2)))
        await asyncio.sleep(0.05)
        assert bus.taken == []
        bus.room = room
        with capture_logs() as said:
            intake.close()
        write.close()
        assert len(bus.taken) == (2 if room else 0)
        return [line["records"] for line in said]

    assert asyncio.run(body(0)) == [4]
    assert asyncio.run(body(1000)) == []

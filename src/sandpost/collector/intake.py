"""Takes what the platform's own processes write, each a datagram of records of one stream, and hands it to the bus.

Records are passed on unparsed. What the bus has no room for waits here, within a bound for each stream; beyond a bound
for all nothing more is read, and the rest waits with whom it comes from.
"""

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable

import msgspec

from sandpost.bus.batches import check
from sandpost.bus.contract import Batch, Writer
from sandpost.collector.counts import Counts
from sandpost.ipc.channel import UNREADABLE
from sandpost.logs.journal import PACKET
from sandpost.logs.setup import get_logger
from sandpost.model.errors import SandpostError
from sandpost.model.host import Users
from sandpost.model.messages import Records
from sandpost.model.names import SYSTEM

MOST = 4 << 20
"""Bytes of records that wait for the bus; beyond it nothing is read."""
STREAM_MOST = 512 * 1024
"""The same of one stream; what is beyond is lost."""
_LONGEST = PACKET + 4096
_A_TURN = 16
_CREDENTIALS = struct.Struct("3i")

log = get_logger()


class Intake:
    """See the module. `room`: bytes that the bus takes of a stream now. `lose`: lines of a stream that are lost."""

    def __init__(
        self,
        writer: Writer,
        users: Users,
        *,
        counts: Counts,
        room: Callable[[str], int],
        lose: Callable[[str, int], None],
    ) -> None:
        self._writer = writer
        # Who may tell tenants something; others speak in the system's stream alone.
        self._trusted = {0, users.proxy}
        self._parts = {0, users.proxy, users.api, users.collector, users.egress}
        self._counts = counts
        self._room, self._lose = room, lose
        self._loop = asyncio.get_running_loop()
        self._decode = msgspec.msgpack.Decoder(Records).decode
        self._sockets: list[socket.socket] = []
        self._reading = True
        self._waiting: dict[str, deque[Batch]] = {}
        self._sizes: dict[str, int] = {}
        self._size = 0

    def take(self, sock: socket.socket) -> None:
        """Read this socket too, which becomes ours. Who was connected to a former one still is."""
        inode = os.fstat(sock.fileno()).st_ino
        if any(os.fstat(one.fileno()).st_ino == inode for one in self._sockets):
            # The supervisor's connection was lost, not the supervisor.
            sock.close()
            return
        sock.setblocking(False)
        self._sockets.append(sock)
        if self._reading:
            self._loop.add_reader(sock.fileno(), self._readable, sock)

    def go_on(self) -> None:
        """The bus has room again, or may have."""
        for stream, batches in list(self._waiting.items()):
            while batches and self._room(stream) >= len(batches[0].lines):
                batch = batches.popleft()
                self._count(stream, -len(batch.lines))
                self._writer.append([batch])
            if not batches:
                del self._waiting[stream]
        if not self._reading and self._size < MOST // 2:
            self._reading = True
            for sock in self._sockets:
                self._loop.add_reader(sock.fileno(), self._readable, sock)

    def close(self) -> None:
        """Hand over what the bus takes, and read no more; what was sent and not read waits for who reads next."""
        self.go_on()
        for sock in self._sockets:
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()
        lost = sum(batch.count for batches in self._waiting.values() for batch in batches)
        if lost:
            log.warning("records of the platform were lost", records=lost)

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(_A_TURN):
            if self._size >= MOST:
                self._reading = False
                for one in self._sockets:
                    self._loop.remove_reader(one.fileno())
                return
            try:
                packet, control, flags, _ = sock.recvmsg(_LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size))
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                log.error("records of the platform cannot be read", err=error)  # noqa: TRY400
                self._loop.remove_reader(sock.fileno())
                return
            batch = None if flags & socket.MSG_TRUNC else self._understood(packet, _uid(control))
            if batch is None:
                self._counts.strange += 1
            else:
                self._pass_on(batch)

    def _understood(self, packet: bytes, uid: int) -> Batch | None:
        try:
            records = self._decode(packet)
        except UNREADABLE:
            return None
        if uid not in self._parts or (records.stream != SYSTEM and uid not in self._trusted):
            return None
        batch = Batch(
            stream=records.stream, source="", end=0, lines=records.lines, count=records.count, time=records.at
        )
        try:
            check(batch)
        except (ValueError, SandpostError):
            return None
        # One of our own that was taken over could write what no reader of JSON takes.
        return batch if batch.lines.count(b"}\n") == batch.count else None

    def _pass_on(self, batch: Batch) -> None:
        stream, size = batch.stream, len(batch.lines)
        self._counts.platform += batch.count
        if stream not in self._waiting and self._room(stream) >= size:
            self._writer.append([batch])
        elif self._sizes.get(stream, 0) + size > STREAM_MOST:
            self._lose(stream, batch.count)
        else:
            self._waiting.setdefault(stream, deque()).append(batch)
            self._count(stream, size)

    def _count(self, stream: str, more: int) -> None:
        self._size += more
        self._sizes[stream] = self._sizes.get(stream, 0) + more
        if not self._sizes[stream]:
            del self._sizes[stream]


def _uid(control: list[tuple[int, int, bytes]]) -> int:
    """Return who sent it, as the kernel says; -1 if it does not."""
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return int(_CREDENTIALS.unpack(data[: _CREDENTIALS.size])[1])
    return -1

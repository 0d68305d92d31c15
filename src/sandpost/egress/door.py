"""What comes from sandboxes by the three sockets, and whose it is.

Whose an address is, the controller says. What is quicker than that news waits for it, bounded (`Ways.wait`).
"""

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from sandpost.egress import streams
from sandpost.egress.accepting import Connections, Datagrams
from sandpost.egress.asked import Asked
from sandpost.egress.counts import Counts
from sandpost.egress.gate import Gate
from sandpost.egress.question import LEAST, refusal
from sandpost.egress.ways import Sandbox, Ways

Serve = Callable[[Sandbox, socket.socket], Coroutine[Any, Any, None]]


class Door:
    """`sockets`: the resolver's datagrams, its connections, the gate's connections. Closed until `open`."""

    def __init__(
        self, sockets: Sequence[socket.socket], *, ways: Ways, asked: Asked, gate: Gate, counts: Counts
    ) -> None:
        self._sockets = sockets
        self._ways = ways
        self._asked = asked
        self._gate = gate
        self._counts = counts
        self._datagrams: Datagrams | None = None
        self._connections: list[Connections] = []
        self.strangers: set[asyncio.Task[None]] = set()
        """What waits for the news whose it is."""

    def open(self) -> None:
        """Take what comes, and what has come."""
        datagrams, questions, gate = self._sockets
        self._datagrams = Datagrams(datagrams, self._on_datagram)
        self._connections = [
            Connections(questions, self._connected(self._serve_questions)),
            Connections(gate, self._connected(self._gate.serve)),
        ]

    def drain(self) -> None:
        """Take all that has come by now."""
        if self._datagrams is not None:
            self._datagrams.drain()
            for connections in self._connections:
                connections.drain()

    def close(self) -> None:
        """Take nothing more; what comes is the next process's."""
        if self._datagrams is not None:
            self._datagrams.close()
        for connections in self._connections:
            connections.close()

    # --- datagrams --------------------------------------------------------------------------------------------

    def _on_datagram(self, wire: bytes, address: str, port: int) -> None:
        sandbox = self._ways.at(address)
        if sandbox is None:
            self._later(self._hold_datagram(wire, address, port))
        else:
            self._answer(sandbox, wire, port)

    def _answer(self, sandbox: Sandbox, wire: bytes, port: int) -> None:
        reply = self._asked.at_once(sandbox, wire)
        if not isinstance(reply, bytes):
            question = reply

            async def ask() -> None:
                self._send(await self._asked.later(sandbox, question), sandbox.address, port)

            sandbox.start(ask())
        elif reply:
            self._send(reply, sandbox.address, port)

    async def _hold_datagram(self, wire: bytes, address: str, port: int) -> None:
        sandbox = await self._ways.wait(address)
        if sandbox is not None:
            self._answer(sandbox, wire, port)
            return
        self._counts.refused["unknown_sandbox"] += 1
        if len(wire) >= LEAST:
            self._send(refusal(wire), address, port)

    def _send(self, wire: bytes, address: str, port: int) -> None:
        if self._datagrams is not None:
            self._datagrams.send(wire, address, port)

    # --- connections ------------------------------------------------------------------------------------------

    async def _serve_questions(self, sandbox: Sandbox, sock: socket.socket) -> None:
        await streams.serve(sandbox, sock, self._asked)

    def _connected(self, serve: Serve) -> Callable[[socket.socket, str], None]:
        async def hold(sock: socket.socket, address: str) -> None:
            sandbox = await self._ways.wait(address)
            if sandbox is None:
                sock.close()
            else:
                sandbox.start(serve(sandbox, sock))

        def taken(sock: socket.socket, address: str) -> None:
            sandbox = self._ways.at(address)
            if sandbox is None:
                self._later(hold(sock, address))
            else:
                sandbox.start(serve(sandbox, sock))

        return taken

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.strangers.add(task)
        task.add_done_callback(self.strangers.discard)

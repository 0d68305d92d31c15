"""Takes what comes to the sockets that the supervisor made: datagrams, and connections by their peer's address.

Both can be emptied at a moment of our choice: before a sandbox's end is acknowledged, what it sent must have been read
as its own and not as its successor's.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable

_A_TURN = 64
"""Taken a turn of the event loop, so that one flood does not keep everything else waiting."""
_MOST_LEFT = 16384
_PAUSE = 0.1
"""Seconds without accepting after the process ran out of descriptors."""
_DATAGRAM = 2048


class Datagrams:
    """Reads datagrams; `taken(wire, address, port)` is called for each."""

    def __init__(self, sock: socket.socket, taken: Callable[[bytes, str, int], None]) -> None:
        self._sock = sock
        self._taken = taken
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._read, _A_TURN)

    def send(self, wire: bytes, address: str, port: int) -> None:
        """Send; what the kernel does not take at once is lost, as datagrams are."""
        with contextlib.suppress(OSError):
            self._sock.sendto(wire, (address, port))

    def drain(self) -> None:
        """Take all that has come."""
        self._read(_MOST_LEFT)

    def close(self) -> None:
        """Take no more; what comes stays in the socket for the next process."""
        self._loop.remove_reader(self._sock.fileno())

    def _read(self, most: int) -> None:
        for _ in range(most):
            try:
                wire, (address, port) = self._sock.recvfrom(_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # An ICMP error of an earlier answer.
                continue
            self._taken(wire, address, port)


class Connections:
    """Accepts connections; `taken(sock, address)` owns each."""

    def __init__(self, sock: socket.socket, taken: Callable[[socket.socket, str], None]) -> None:
        self._sock = sock
        self._taken = taken
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        self._watch()

    def drain(self) -> None:
        """Take all that have come."""
        self._accept(_MOST_LEFT)

    def close(self) -> None:
        """Take no more; who waits is accepted by the next process."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._sock.fileno())

    def _watch(self) -> None:
        self._timer = None
        self._loop.add_reader(self._sock.fileno(), self._accept, _A_TURN)

    def _accept(self, most: int) -> None:
        for _ in range(most):
            try:
                sock, (address, _port) = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError:
                self._loop.remove_reader(self._sock.fileno())
                if self._timer is None:
                    self._timer = self._loop.call_later(_PAUSE, self._watch)
                return
            sock.setblocking(False)
            self._taken(sock, address)

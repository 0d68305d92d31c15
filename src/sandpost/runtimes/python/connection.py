"""A connection from a proxy: requests one after another, bytes both ways with back-pressure."""

from __future__ import annotations

from _socket import IPPROTO_TCP, SHUT_WR, TCP_NODELAY

from .body import HIGH_WATER, Body, FramingError
from .exchange import MALFORMED, Exchange
from .head import MAX_HEAD, MalformedError, parse
from .reactor import REACTOR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import Protocol

    class Tunnel(Protocol):
        """Whoever has taken a connection over after an upgrade."""

        @property
        def received(self) -> Callable[[bytes], object]:
            """Called with what comes."""

        def ended(self) -> None:
            """No more will come. Once."""


_READ = 65536
_GRACE = 1.0
"""Seconds that an answer may still come for a client that sends no more: it may have closed half, or all."""


class Connection:
    """`lost` is its one end."""

    __slots__ = (
        "_advancing", "_buffer", "_closing", "_drained", "_ended", "_fd", "_handle", "_out", "_reading", "_socket",
        "closed", "exchange", "tunnel", "unsent",
    )  # fmt: skip

    def __init__(self, sock: socket, handle: Callable[[Exchange], object]) -> None:
        self._socket = sock
        self._fd = sock.fileno()
        self._handle = handle
        self._buffer = b""
        self._advancing = False
        self._closing = False
        self._ended = False
        self._reading = True
        self._out: list[bytes | memoryview] = []
        self.unsent = 0
        """Bytes that the kernel has not taken yet."""
        self._drained: list[Callable[[], object]] = []
        self.closed = False
        self.exchange: Exchange | None = None
        self.tunnel: Tunnel | None = None
        sock.setblocking(False)
        if sock.family != 1:
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        REACTOR.add_reader(self._fd, self._readable)

    # --- in -----------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            self.lost()
            return
        if not data:
            self._end_of_input()
        elif self.tunnel is not None:
            self.tunnel.received(data)
        else:
            self._buffer = self._buffer + data if self._buffer else data
            self.advance()

    def _end_of_input(self) -> None:
        self._ended = True
        self._read_on(False)
        tunnel, exchange = self.tunnel, self.exchange
        if tunnel is not None:
            tunnel.ended()
            self.lost()
        elif exchange is None:
            self.lost()
        else:
            self._closing = exchange.close = True
            exchange.client_gone()
            if not self.closed:
                REACTOR.call_later(_GRACE, self.lost)

    def advance(self) -> None:
        """Go on with what has come, as far as it goes."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while not self.closed and self._step():
                pass
        except (MalformedError, FramingError, UnicodeDecodeError):
            self._refuse()
        finally:
            self._advancing = False
        if not self.closed and self.tunnel is None:
            exchange = self.exchange
            body = None if exchange is None else exchange.body
            self._read_on(body is None or body.wanted or (body.finished and len(self._buffer) < HIGH_WATER))

    def _step(self) -> bool:
        """Take one step; False if nothing can be done before more comes."""
        exchange = self.exchange
        if exchange is None:
            if self._closing or self.tunnel is not None:
                return False
            buffer = self._buffer
            if not buffer:
                return False
            end = buffer.find(b"\r\n\r\n")
            if end < 0 or end > MAX_HEAD:
                if len(buffer) > MAX_HEAD:
                    raise MalformedError("the head is too long")
                return False
            head = parse(buffer[:end].decode("latin-1"))
            self._buffer = buffer[end + 4 :]
            self.exchange = exchange = Exchange(self, head, Body(head.length, chunked=head.chunked))
            self._handle(exchange)
            return True
        body = exchange.body
        if exchange.finished and exchange.close:
            # Whatever of its body is still under way.
            self.exchange = None
            self._close()
            return False
        if not body.finished:
            if not self._buffer or not body.wanted:
                return False
            self._buffer = body.feed(self._buffer)
            if body.arrived is not None:
                body.arrived()
            return True
        if exchange.finished:
            self.exchange = None
            return True
        return False

    def _refuse(self) -> None:
        exchange = self.exchange
        self._closing = True
        self._read_on(False)
        if exchange is None:
            self.write(MALFORMED)
            self._close()
        else:
            # The end of its body is not to be found.
            self.lost()

    def _read_on(self, wanted: bool) -> None:
        wanted = wanted and not self._ended
        if wanted == self._reading or self.closed:
            return
        self._reading = wanted
        if wanted:
            REACTOR.add_reader(self._fd, self._readable)
        else:
            REACTOR.remove_reader(self._fd)

    def hold(self, held: bool) -> None:
        """Read nothing more for a tunnel whose program is behind, or go on."""
        self._read_on(not held)

    def take_over(self, tunnel: Tunnel) -> None:
        """From now on all bytes are the tunnel's, those that have come too."""
        self.tunnel = tunnel
        self._read_on(True)
        early, self._buffer = self._buffer, b""
        if early:
            tunnel.received(early)

    # --- out ----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send, now or when there is room."""
        if self.closed:
            return
        if not self._out:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                # Not here: whoever writes is in the midst of its own affairs.
                REACTOR.call_soon(self.lost)
                return
            if sent == len(data):
                return
            self._out.append(memoryview(data)[sent:] if sent else data)
            self.unsent = len(data) - sent
            REACTOR.add_writer(self._fd, self._writable)
        else:
            self._out.append(data)
            self.unsent += len(data)

    def write_last(self, data: bytes) -> None:
        """Send from any thread, right before the process ends."""
        if not self.closed and not self._out:
            try:
                self._socket.setblocking(True)
                self._socket.settimeout(1.0)
                self._socket.sendall(data)
            except OSError:
                pass

    def when_drained(self, call: Callable[[], object]) -> None:
        """Call once what is unsent is little, or the connection has ended."""
        if self.closed or self.unsent <= HIGH_WATER:
            call()
        else:
            self._drained.append(call)

    def _writable(self) -> None:
        out = self._out
        while out:
            data = out[0]
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                break
            except OSError:
                self.lost()
                return
            self.unsent -= sent
            if sent < len(data):
                out[0] = memoryview(data)[sent:]
                break
            del out[0]
        if not out:
            REACTOR.remove_writer(self._fd)
            if self._closing and (self.exchange is None or self.exchange.finished):
                self._close()
        if self.unsent <= HIGH_WATER:
            self._tell_drained()

    def _tell_drained(self) -> None:
        waiting, self._drained = self._drained, []
        for call in waiting:
            call()

    # --- ends ---------------------------------------------------------------------------------------------------

    def exchange_ended(self) -> None:
        """The answer is whole: go on with the next request."""
        self.advance()

    def _close(self) -> None:
        """End once all is sent. What still comes is read, else the kernel would throw away what was sent."""
        self._closing = True
        if self._out:
            return
        if self._ended:
            self.lost()
            return
        try:
            self._socket.shutdown(SHUT_WR)
        except OSError:
            self.lost()
            return
        self._buffer = b""
        self.tunnel = _Ending(self)
        self._read_on(True)
        REACTOR.call_later(_GRACE, self.lost)

    def end_tunnel(self) -> None:
        """The program has ended a connection that it took over."""
        exchange = self.exchange
        if exchange is not None and not exchange.finished:
            exchange.finished = True
            if exchange.owner is not None:
                exchange.owner.over()
        self._close()

    def lost(self) -> None:
        """Close now, whatever is under way."""
        if self.closed:
            return
        if self._reading:
            REACTOR.remove_reader(self._fd)
        if self._out:
            REACTOR.remove_writer(self._fd)
        self.closed = True
        self._socket.close()
        self._out = []
        self.unsent = 0
        self._tell_drained()
        exchange, tunnel, self.tunnel = self.exchange, self.tunnel, None
        if exchange is not None:
            exchange.client_gone()
        if tunnel is not None and not self._ended:
            self._ended = True
            tunnel.ended()


class _Ending:
    """Reads what comes after the end."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def received(self, data: bytes) -> None:
        """Too late."""

    def ended(self) -> None:
        """The other end has closed as well."""

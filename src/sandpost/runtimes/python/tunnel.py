"""A connection that an upgrade request has turned into bytes both ways."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .exchange import Exchange


class Tunnel:
    """`received(data)` is called for what comes, `ended()` once."""

    def __init__(self, exchange: Exchange, received: Callable[[bytes], object], ended: Callable[[], object]) -> None:
        self._exchange = exchange
        self.received = received
        self._on_end = ended

    def begin(self) -> None:
        """Take the connection over: its answer has begun, and its end is the connection's."""
        self._exchange.started = True
        if self._exchange.gone:
            self._on_end()
        else:
            self._exchange.connection.take_over(self)

    def ended(self) -> None:
        """No more will come."""
        self._on_end()

    def write(self, data: bytes) -> None:
        """Send."""
        self._exchange.connection.write(data)

    def hold(self, held: bool) -> None:
        """Read nothing more, or go on."""
        self._exchange.connection.hold(held)

    def end(self) -> None:
        """Close once all is sent."""
        self._exchange.connection.end_tunnel()

"""Asking a sandbox's event loop whether it still turns, on a connection of its own."""

from collections.abc import Callable

from sandpost.model.wire import ANSWER
from sandpost.proxy.upstream import Pool, Upstream

_REQUEST = b"GET / HTTP/1.1\r\nx-sandpost-op: probe\r\nhost: sandbox\r\n\r\n"
_MAX_ANSWER = 4096


class Probe:
    """At most one question is open at a time; `asked_at` says since when, 0 if none is."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._up: Upstream | None = None
        self._connecting = False
        self._seen = b""
        self.asked_at = 0.0
        self._then: list[Callable[[], None]] = []

    def ask(self, now: float, then: Callable[[], None] | None = None) -> None:
        """Ask unless a question is open; `then` runs once with the answer, and never if none comes."""
        if then is not None:
            self._then.append(then)
        if not self.asked_at:
            self.asked_at = now
        elif self._up is not None or self._connecting:
            return
        if self._up is not None:
            self._send()
        else:
            self._connecting = True
            self._pool.open(self)

    def close(self) -> None:
        """End the connection and forget the question."""
        self.asked_at = 0.0
        self._then = []
        if self._up is not None:
            self._up.end()
            self._up = None

    def _send(self) -> None:
        assert self._up is not None
        assert self._up.transport is not None
        self._seen = b""
        self._up.transport.write(_REQUEST)

    def up_ready(self, up: Upstream) -> None:
        """Connected: ask now, if somebody still wants to know."""
        self._connecting = False
        self._up = up
        if self.asked_at:
            self._send()

    def up_failed(self, _error: str) -> None:
        """No connection: the question stays open, the next `ask` tries again."""
        self._connecting = False

    def up_lost(self, _clean: bool) -> None:
        """The connection ended: the question stays open."""
        self._up = None

    def up_writable(self, writable: bool) -> None:
        """A probe is a hundred bytes."""

    def up_data(self, data: bytes) -> None:
        """Compare with what an honest runtime says; anything else is no answer."""
        self._seen += data
        if len(self._seen) > _MAX_ANSWER or not self.asked_at:
            self._drop()
            return
        if not self._seen.endswith(b"\r\n\r\n"):
            return
        if not self._seen.startswith(ANSWER):
            self._drop()
            return
        self.asked_at = 0.0
        then, self._then = self._then, []
        for call in then:
            call()

    def _drop(self) -> None:
        up, self._up = self._up, None
        if up is not None:
            up.end()

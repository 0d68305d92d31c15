"""Fetching what a sandbox has made of a program, for the next sandbox of the same tenant.

The bytes are the tenant's own: nobody here looks into them, and nobody else's sandbox gets them.
"""

import asyncio
from collections.abc import Callable

from sandpost.proxy.code import MADE
from sandpost.proxy.holding import Holding
from sandpost.proxy.http1.errors import BrokenResponse
from sandpost.proxy.http1.response import ResponseHead
from sandpost.proxy.reply import OtherWire, Reply
from sandpost.proxy.upstream import Pool, Upstream

_DEADLINE = 10.0


class Fetch:
    """One question. `then(made)` runs once, with nothing if none came in time or it is too long.

    What has come counts as held for the tenant: many sandboxes may answer slowly at once.
    """

    def __init__(
        self, pool: Pool, tenant: str, code_hash: str, holding: Holding, then: Callable[[bytes], None]
    ) -> None:
        self._pool = pool
        self._tenant = tenant
        self._code_hash = code_hash
        self._holding = holding
        self._then: Callable[[bytes], None] | None = then
        self._up: Upstream | None = None
        self._reply = Reply("GET", MADE)
        self._timer = asyncio.get_running_loop().call_later(_DEADLINE, self.cancel)

    def start(self) -> None:
        """Take a connection and ask."""
        up = self._pool.take(self)
        if up is not None:
            self.up_ready(up)

    def cancel(self) -> None:
        """Stop."""
        self._pool.forget(self)
        self._end(b"")

    def give_up(self) -> None:
        """The worker holds too much: it is compiled again."""
        self.cancel()

    def up_ready(self, up: Upstream) -> None:
        """Ask."""
        if self._then is None:
            self._pool.give(up)
            return
        self._up = up
        assert up.transport is not None
        code = self._code_hash.encode()
        up.transport.write(
            b"GET / HTTP/1.1\r\nx-sandpost-op: made\r\nx-sandpost-code: " + code + b"\r\nhost: sandbox\r\n\r\n"
        )

    def up_failed(self, _error: str) -> None:
        """No connection."""
        self._end(b"")

    def up_writable(self, _writable: bool) -> None:
        """A question is a hundred bytes."""

    def up_lost(self, _clean: bool) -> None:
        """The connection ended."""
        self._up = None
        self._end(b"")

    def up_data(self, data: bytes) -> None:
        """Read the answer."""
        self._holding.add(self._tenant, self, len(data))
        try:
            head = self._reply.feed(data)
            if head is not None:
                self._finish(head)
        except (BrokenResponse, OtherWire):
            # What it is asked about its programs is a favour to its tenant: it is no reason to end it.
            self._end(b"")

    def _finish(self, head: ResponseHead) -> None:
        up, self._up = self._up, None
        if up is not None and head.keep_alive:
            self._pool.give(up)
        elif up is not None:
            up.end()
        self._end(self._reply.body if head.status == 200 else b"")

    def _end(self, made: bytes) -> None:
        self._timer.cancel()
        self._holding.drop(self._tenant, self)
        up, self._up = self._up, None
        if up is not None:
            up.end()
        then, self._then = self._then, None
        if then is not None:
            then(made)

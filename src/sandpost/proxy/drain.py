"""How a worker stops: it accepts no more, idle connections pass to another worker, the rest finishes or is cut."""

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from sandpost.logs.setup import get_logger
from sandpost.proxy.handover import BATCH, Giver, socket_path
from sandpost.proxy.passthrough import Passage

if TYPE_CHECKING:
    from sandpost.proxy.client import Client
    from sandpost.proxy.worker import Worker

log = get_logger()

_TURN = 0.05
_ALONE_GRACE = 1.0
"""Seconds that an idle connection is kept when no worker takes it, for a request that may be on its way; then streams
without an end are cut, which would keep a worker for the whole time."""


class Drain:
    """Runs until nothing is left or `timeout` seconds have passed."""

    def __init__(self, worker: "Worker", timeout: float) -> None:
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._giver: Giver | None = None
        self._offered: list[tuple[Client, int]] = []
        self._handed = 0

    async def run(self) -> None:
        """Return when every connection has ended or was passed on."""
        worker = self._worker
        began = self._loop.time()
        ends_at = began + self._timeout
        alone_until = began + min(_ALONE_GRACE, self._timeout)
        for client in list(worker.clients):
            client.keep_alive = False
        while worker.clients and self._loop.time() < ends_at:
            if not self._offered:
                self._offer()
            if self._giver is None and self._loop.time() >= alone_until:
                for client in list(worker.clients):
                    if client.is_idle():
                        client.close()
            if self._loop.time() >= alone_until:
                # Who reads a stream comes again, to a worker that stays.
                for stream in [one for one in worker.exchanges if isinstance(one, Passage) and one.endless]:
                    stream.cut()
            await asyncio.sleep(_TURN if self._giver is None else 0.002)
        self._take_back()
        if self._giver is not None:
            self._giver.close()
        cut = 0
        for exchange in list(worker.exchanges):
            cut += 1
            exchange.cut()
        for client in list(worker.clients):
            client.close()
        log.info("drained", handed_over=self._handed, cut=cut, seconds=round(self._loop.time() - began, 3))

    def _offer(self) -> None:
        """Send the next idle connections to another worker."""
        idle = [client for client in self._worker.clients if client.is_idle() and not client.secure][:BATCH]
        if not idle:
            return
        if self._giver is None:
            self._giver = self._find_taker()
            if self._giver is None:
                return
        offered = []
        for client in idle:
            fd = client.begin_handover()
            if fd >= 0:
                offered.append((client, fd))
        self._offered = offered
        if offered:
            self._giver.give([fd for _, fd in offered])
            self._close_fds()

    def _close_fds(self) -> None:
        # The channel has sent them or holds copies of its own.
        for _, fd in self._offered:
            os.close(fd)

    def _taken(self) -> None:
        for client, _ in self._offered:
            client.abort()
        self._handed += len(self._offered)
        self._worker.counts.handed_over += len(self._offered)
        self._offered = []

    def _lost(self) -> None:
        self._giver = None
        self._take_back()

    def _take_back(self) -> None:
        for client, _ in self._offered:
            client.end_handover()
        self._offered = []

    def _find_taker(self) -> Giver | None:
        worker = self._worker
        others = [index for index in range(worker.host.workers) if index != worker.index]
        for index in [worker.index, *others]:
            with contextlib.suppress(OSError):
                giver = Giver(socket_path(worker.host, index), self._taken, self._lost)
                if not giver.to_self:
                    return giver
                giver.close()
        return None

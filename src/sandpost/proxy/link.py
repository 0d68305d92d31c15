"""The worker's lines to the controller and to the supervisor."""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from sandpost.ipc import Channel, Connector
from sandpost.kernel.descriptors import close_all
from sandpost.logs.setup import get_logger
from sandpost.model.host import Host
from sandpost.model.messages import (
    Assigned,
    FromController,
    FromSupervisor,
    GiveListeners,
    Gone,
    Granted,
    Hello,
    Hit,
    Leaving,
    Listen,
    Listeners,
    Ready,
    Refused,
    Reload,
    Report,
    Retire,
    Table,
    Unlisten,
)
from sandpost.proxy.routes import CONTROLLER_GRACE, Routes

log = get_logger()


class ControllerLink:
    """Keeps the route table in step with the controller. `table_known`: connected, and the whole table is here."""

    def __init__(self, host: Host, index: int) -> None:
        self._index = index
        self._path = host.controller_socket
        self._loop = asyncio.get_running_loop()
        self._connector: Connector[FromController] | None = None
        self._routes: Routes | None = None
        self.table_known = False
        self._away_since = float("-inf")
        self._warning: asyncio.TimerHandle | None = None

    def open(self, routes: Routes) -> None:
        """Begin to connect."""
        self._routes = routes
        self._connector = Connector(self._path, FromController, self._take, greet=self._greet, on_lost=self._lost)

    def close(self) -> None:
        """Disconnect: that is no loss."""
        self._forget_loss()
        self.table_known = False
        if self._connector is not None:
            self._connector.close()

    def send(self, message: msgspec.Struct) -> bool:
        """Send if connected."""
        return self._connector is not None and self._connector.send(message)

    def away_for(self) -> float:
        """Return for how many seconds the controller has been away; infinite if it was never here."""
        return 0.0 if self.table_known else self._loop.time() - self._away_since

    def report(self) -> None:
        """Send what happened since the last report (called once a second)."""
        if self._routes is None or not self.table_known:
            return
        activities = self._routes.activities()
        # A report of a thousand sandboxes would not fit into a packet.
        for start in range(0, len(activities), 1000):
            self.send(Report(activities=activities[start : start + 1000]))

    def _greet(self, channel: Channel[FromController]) -> None:
        channel.send(Hello(part="proxy", index=self._index, pid=os.getpid()))
        assert self._routes is not None
        self._routes.connected()

    def _lost(self) -> None:
        if self.table_known:
            log.info("the connection to the controller has ended")
            self._away_since = self._loop.time()
            # At a renewal it is back before anybody has to be told.
            self._warning = self._loop.call_later(CONTROLLER_GRACE, self._warn)
        self.table_known = False
        assert self._routes is not None
        self._routes.disconnected()

    def _warn(self) -> None:
        log.warning("the controller is away; tenants that have a sandbox are served")

    def _forget_loss(self) -> None:
        if self._warning is not None:
            self._warning.cancel()
            self._warning = None

    def _take(self, _channel: Channel[FromController], message: FromController, fds: list[int]) -> None:
        close_all(fds)
        routes = self._routes
        assert routes is not None
        if isinstance(message, Granted):
            routes.granted(message)
        elif isinstance(message, Assigned):
            routes.assigned(message)
        elif isinstance(message, Gone):
            routes.gone(message)
        elif isinstance(message, Hit):
            routes.hit(message)
        elif isinstance(message, Refused):
            routes.refused(message)
        elif isinstance(message, Leaving):
            routes.leaving(message)
        elif isinstance(message, Table):
            routes.take_table(message)
            if message.last:
                self._forget_loss()
                self.table_known = True
                log.info("connected to the controller", routes=len(routes.sandboxes))


@dataclass(frozen=True)
class Orders:
    """What the supervisor may order."""

    listen: Callable[[int, int], None]
    """Accept at the listening socket (descriptor, now ours) of a worker's index."""
    unlisten: Callable[[int], None]
    listeners: Callable[[], dict[int, int]]
    """Return the listening descriptors by index."""
    retire: Callable[[float], None]
    reload: Callable[[], None]


class SupervisorLink:
    """Takes the supervisor's orders. Without a supervisor (another service manager) the worker just runs."""

    def __init__(self, host: Host, index: int, orders: Orders) -> None:
        self._index = index
        self._orders = orders
        self._connector: Connector[FromSupervisor] = Connector(
            host.supervisor_socket, FromSupervisor, self._take, greet=self._greet
        )

    def close(self) -> None:
        """Disconnect."""
        self._connector.close()

    def _greet(self, channel: Channel[FromSupervisor]) -> None:
        channel.send(Hello(part="proxy", index=self._index, pid=os.getpid()))
        channel.send(Ready())

    def _take(self, channel: Channel[FromSupervisor], message: FromSupervisor, fds: list[int]) -> None:
        if isinstance(message, Listen) and len(fds) == 1:
            self._orders.listen(message.index, fds[0])
            return
        close_all(fds)
        if isinstance(message, Unlisten):
            self._orders.unlisten(message.index)
        elif isinstance(message, GiveListeners):
            listeners = self._orders.listeners()
            channel.send(Listeners(indices=list(listeners)), list(listeners.values()))
        elif isinstance(message, Retire):
            self._orders.retire(message.timeout)
        elif isinstance(message, Reload):
            self._orders.reload()


def listening_socket(fd: int) -> socket.socket:
    """Return the socket of an inherited or received descriptor, which it owns from now on."""
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock

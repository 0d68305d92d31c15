"""The api's line to the controller: questions with deadlines, changes of tenants, batches of usage."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from sandpost.ipc.channel import Channel, Connector
from sandpost.kernel.descriptors import close_all
from sandpost.logs.setup import get_logger
from sandpost.model.errors import Unavailable
from sandpost.model.limits import EngineName, Tenant
from sandpost.model.messages import (
    AskStatus,
    Done,
    Engines,
    FromController,
    Hello,
    ListSandboxes,
    Sandboxes,
    SandboxInfo,
    Status,
    TenantChanged,
    TenantRemoved,
    Usage,
    UsageTaken,
)
from sandpost.store import StoreError

log = get_logger()

ANSWER_TIMEOUT = 2.0
"""Seconds for an answer of the controller."""
LINE_TIMEOUT = Connector.RETRY_MAX + 0.2
"""Seconds for a connection to it, so that who asks right after a start finds out what is there."""
_BATCHES = 16
_STORE_RETRY = 1.0


class Controller:
    """Connected whenever the controller is there; `on_connected()` is called each time.

    `take_usage` makes a batch durable before it returns.

    A change of a tenant that the controller did not acknowledge is told again at the next connection, the last
    one of each tenant.
    """

    def __init__(
        self, path: str, take_usage: Callable[[Usage], Awaitable[None]], on_connected: Callable[[], None]
    ) -> None:
        self._take_usage = take_usage
        self._on_connected = on_connected
        self._seq = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._parts: dict[int, list[SandboxInfo]] = {}
        self._untold: dict[str, Tenant | None] = {}
        self._telling: dict[int, tuple[str, Tenant | None]] = {}
        self._batches: asyncio.Queue[Usage] = asyncio.Queue(_BATCHES)
        self._greeted = asyncio.Event()
        self._line: Connector[FromController] = Connector(
            path, FromController, self._on_message, greet=self._greet, on_lost=self._on_lost
        )
        self._worker = asyncio.create_task(self._keep_usage(), name="usage")

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._line.connected

    async def close(self) -> None:
        """Disconnect; a batch of usage that is being written is finished or told again by the controller."""
        self._worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._worker
        self._line.close()

    async def sandboxes(self, tenant: str | None) -> list[SandboxInfo]:
        """Return all sandboxes, or a tenant's."""
        seq = next(self._seq)
        self._parts[seq] = []
        try:
            await self._ask(seq, ListSandboxes(seq=seq, tenant=tenant))
            return self._parts[seq]
        finally:
            del self._parts[seq]

    async def status(self) -> Status:
        """Return the controller's figures."""
        seq = next(self._seq)
        status: Status = await self._ask(seq, AskStatus(seq=seq))
        return status

    def tell_engines(self, engines: list[EngineName], alone: list[EngineName | None]) -> None:
        """Say which engines tenants are set to, and `alone` those of `per_request` tenants (None: the host's).

        Lost without a connection, and said again at the next.
        """
        self._line.send(Engines(engines=engines, alone=alone))

    async def tell(self, name: str, tenant: Tenant | None) -> bool:
        """Say that tenant `name` is now `tenant`, or (None) that it is removed; whether that was acknowledged."""
        self._untold[name] = tenant
        if not self._line.connected:
            return False
        seq = next(self._seq)
        try:
            await self._ask(seq, self._telling_message(seq, name, tenant))
        except Unavailable:
            return False
        return True

    def _telling_message(self, seq: int, name: str, tenant: Tenant | None) -> TenantChanged | TenantRemoved:
        self._telling[seq] = (name, tenant)
        return TenantRemoved(seq=seq, name=name) if tenant is None else TenantChanged(seq=seq, tenant=tenant)

    async def _ask(self, seq: int, message: Any) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[seq] = future
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINE_TIMEOUT):
                    await self._greeted.wait()
            if not self._line.send(message):
                raise Unavailable("the controller is not running: `sandpost status` and its log say more")
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await future
        except TimeoutError as error:
            raise Unavailable(f"the controller did not answer within {ANSWER_TIMEOUT:g} s: try again") from error
        finally:
            del self._waiting[seq]

    def _greet(self, channel: Channel[FromController]) -> None:
        channel.send(Hello(part="api", pid=os.getpid()))
        for name, tenant in self._untold.items():
            channel.send(self._telling_message(next(self._seq), name, tenant))
        # The connector knows of the connection when this returns.
        asyncio.get_running_loop().call_soon(self._on_connected)
        self._greeted.set()

    def _on_lost(self) -> None:
        self._greeted.clear()
        self._telling.clear()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the controller went away before it answered: try again"))

    def _on_message(self, _channel: Channel[FromController], message: FromController, fds: list[int]) -> None:
        close_all(fds)
        match message:
            case Sandboxes():
                if message.seq in self._parts:
                    self._parts[message.seq].extend(message.items)
                if message.last:
                    self._answer(message.seq, None)
            case Status():
                self._answer(message.seq, message)
            case Done():
                name, tenant = self._telling.pop(message.seq, ("", None))
                # Only if nothing newer is to be told of the tenant.
                if name in self._untold and self._untold[name] is tenant:
                    del self._untold[name]
                self._answer(message.seq, message)
            case Usage():
                try:
                    self._batches.put_nowait(message)
                except asyncio.QueueFull:
                    log.warning("usage waits for the store; the controller will tell it again", batch=message.batch)
            case _:
                return

    def _answer(self, seq: int, value: Any) -> None:
        future = self._waiting.get(seq)
        if future is not None and not future.done():
            future.set_result(value)

    async def _keep_usage(self) -> None:
        while True:
            batch = await self._batches.get()
            while True:
                try:
                    await self._take_usage(batch)
                    break
                except StoreError as error:
                    log.warning("usage cannot be kept yet", batch=batch.batch, problem=error.message)
                    await asyncio.sleep(_STORE_RETRY)
                except Exception:
                    log.exception("a batch of usage cannot be kept and is dropped", batch=batch.batch)
                    break
            self._line.send(UsageTaken(batch=batch.batch))

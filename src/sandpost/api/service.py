"""What the management routes do their work with: the store in a thread of its own, the controller, the modules."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sandpost.api.controller import Controller
from sandpost.api.logs.streams import Streams
from sandpost.api.modules.queue import Modules
from sandpost.bus import drivers
from sandpost.kernel import threads
from sandpost.logs.setup import get_logger
from sandpost.model.errors import SandpostError
from sandpost.model.host import Host
from sandpost.model.limits import Tenant
from sandpost.model.messages import Usage
from sandpost.store import TenantRecord, Writer

log = get_logger()
T = TypeVar("T")


class Service:
    """One host's store, controller and modules. `close` lets go of them."""

    def __init__(self, host: Host, writer: Writer) -> None:
        self.host = host
        self._writer = writer
        # One thread: a write waits for the disk, and the loop does not.
        self._thread = threads.started(1, "store")
        self._reconciling: asyncio.Task[None] | None = None
        self.streams = Streams(self.store, drivers.reader(host))
        self.controller = Controller(host.controller_socket, self._take_usage, self.reconcile_soon)
        self.modules = Modules(self)

    async def store(self, work: Callable[[Writer], T]) -> T:
        """Return what `work` made of the store; a write that has begun ends, also if its caller goes away."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._writer)

    async def tell(self, record: TenantRecord) -> bool:
        """Let the controller know of a tenant's new settings; whether it took them up."""
        return await self.controller.tell(record.name, record.tenant(self.host.defaults))

    async def tell_engines(self) -> None:
        """Let the controller know which engines tenants are set to: those get a pool of their own."""
        engines, alone = await self.store(lambda writer: (writer.engines(), writer.engines_alone()))
        self.controller.tell_engines(sorted(engines), sorted(alone, key=str))

    async def close(self) -> None:
        """Let go."""
        if self._reconciling is not None:
            self._reconciling.cancel()
        await self.modules.close()
        await self.streams.close()
        await self.controller.close()
        self._thread.shutdown(wait=True)
        self._writer.close()

    async def _take_usage(self, usage: Usage) -> None:
        await self.store(lambda writer: writer.add_usage(usage.batch, usage.items))

    def reconcile_soon(self) -> None:
        """Tell the controller what is set now of every tenant that runs, whatever it has heard."""
        if self._reconciling is not None:
            self._reconciling.cancel()
        self._reconciling = asyncio.create_task(self._reconcile(), name="reconcile")

    async def _reconcile(self) -> None:
        try:
            await self.tell_engines()
            names = sorted({info.tenant for info in await self.controller.sandboxes(None) if info.tenant is not None})
            for name in names:
                record = await self.store(lambda writer, name=name: writer.tenant(name))  # type: ignore[misc]
                if record is not None:
                    await self.tell(record)
                else:
                    await self.controller.tell(name, Tenant(name=name, limits=self.host.defaults))
        except SandpostError as error:
            log.warning("tenants' settings could not be told to the controller", problem=error.message)

"""Whose an address is: the controller's word, kept while the controller is away.

All that is under way for a sandbox is a task of `Sandbox.work`, so that its end can be waited for: until then its
address is not dealt again, and nothing of the former owner meets the next one.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from sandpost.egress.tenancy import Tenancies, Tenancy
from sandpost.logs.setup import get_logger
from sandpost.model.egress import Egress, parse_egress
from sandpost.model.errors import InvalidValue
from sandpost.model.messages import Way

HOLD = 0.3
"""Seconds that a question of an unknown address waits: the sandbox may be quicker than the news of it."""
_MOST_HELD = 256
_NOTHING = Egress("none", "none")

log = get_logger()


class Sandbox:
    """One sandbox that may ask."""

    __slots__ = ("address", "id", "policy", "tenancy", "work")

    def __init__(self, way: Way, tenancy: Tenancy) -> None:
        self.id = way.sandbox_id
        self.address = way.address
        self.tenancy = tenancy
        self.policy = _policy(way)
        self.work: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do `work` as long as the sandbox is there."""
        task = asyncio.create_task(work)
        self.work.add(task)
        task.add_done_callback(self._done)
        return task

    @staticmethod
    def task() -> asyncio.Task[None]:
        """Return the task of a sandbox's work that calls this."""
        task = asyncio.current_task()
        assert task is not None
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self.work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("something for a sandbox failed as it never should", sandbox_id=self.id, err=error)


class Ways:
    """All sandboxes, by address. `changed(sandbox)` is called when its policy is another one."""

    def __init__(self, tenancies: Tenancies, changed: Callable[[Sandbox], None]) -> None:
        self._tenancies = tenancies
        self._changed = changed
        self._by_address: dict[str, Sandbox] = {}
        self._by_id: dict[str, Sandbox] = {}
        self._table: set[str] = set()
        self._held: dict[str, list[asyncio.Future[None]]] = {}
        self._holding = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def at(self, address: str) -> Sandbox | None:
        """Return the sandbox with this address."""
        return self._by_address.get(address)

    async def wait(self, address: str) -> Sandbox | None:
        """Wait for the sandbox with this address, at most `HOLD`; None if none is told, or too many wait."""
        if self._holding >= _MOST_HELD:
            return None
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held.setdefault(address, []).append(told)
        self._holding += 1
        try:
            async with asyncio.timeout(HOLD):
                await told
        except TimeoutError:
            return None
        finally:
            self._holding -= 1
            waiting = self._held.get(address, [])
            if told in waiting:
                waiting.remove(told)
            if not waiting:
                self._held.pop(address, None)
        return self._by_address.get(address)

    def open(self, way: Way) -> None:
        """A way begins, or has another policy."""
        known = self._by_id.get(way.sandbox_id)
        if known is not None and (known.address, known.tenancy.name) == (way.address, way.tenant):
            if known.policy.text != way.egress:
                known.policy = _policy(way)
                self._changed(known)
            return
        for former in (known, self._by_address.get(way.address)):
            # We were not told of its end: its address has a new owner.
            if former is not None and former.id in self._by_id:
                self._close(former)
        tenancy = self._tenancies.get(way.tenant, time.monotonic())
        tenancy.sandboxes += 1
        self._by_address[way.address] = self._by_id[way.sandbox_id] = Sandbox(way, tenancy)
        for told in self._held.pop(way.address, []):
            if not told.done():
                told.set_result(None)

    def take_table(self, ways: list[Way], *, last: bool) -> None:
        """Take a part of all ways; after the `last` one, what was in none of them is gone."""
        for way in ways:
            self.open(way)
            self._table.add(way.sandbox_id)
        if last:
            for sandbox in [one for one in self._by_id.values() if one.id not in self._table]:
                self._close(sandbox)
            self._table.clear()

    def lose_table(self) -> None:
        """The controller went away in the midst of its table."""
        self._table.clear()

    def close(self, sandbox_id: str) -> set[asyncio.Task[None]]:
        """A way ends; return what still was under way for it, which is being broken off."""
        sandbox = self._by_id.get(sandbox_id)
        return set() if sandbox is None else self._close(sandbox)

    def close_all(self) -> set[asyncio.Task[None]]:
        """Break everything off."""
        left: set[asyncio.Task[None]] = set()
        for sandbox in list(self._by_id.values()):
            left |= self._close(sandbox)
        return left

    def under_way(self) -> set[asyncio.Task[None]]:
        """Return all that is under way."""
        return {task for sandbox in self._by_id.values() for task in sandbox.work}

    def _close(self, sandbox: Sandbox) -> set[asyncio.Task[None]]:
        del self._by_id[sandbox.id]
        if self._by_address.get(sandbox.address) is sandbox:
            del self._by_address[sandbox.address]
        sandbox.tenancy.sandboxes -= 1
        sandbox.tenancy.unused_since = time.monotonic()
        for task in sandbox.work:
            task.cancel()
        return set(sandbox.work)


def _policy(way: Way) -> Egress:
    try:
        return parse_egress(way.egress)
    except InvalidValue as error:
        # A controller of another release may know policies that we do not: then nothing is open.
        log.error(  # noqa: TRY400 - the message says it all
            "a policy that cannot be read counts as `none`", sandbox_id=way.sandbox_id, error=error.message
        )
        return _NOTHING

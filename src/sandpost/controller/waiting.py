"""Sandboxes that are wanted and not there yet: one entry however many calls of a tenant wait for it.

Tenants have turns: one wait of each, then the next of each, and whose wait got something goes to the end. So nobody
waits longer because another tenant's calls wait for a sandbox each.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter

from sandpost.controller.lifecycle import Kind, Sandbox
from sandpost.controller.record import ProxyKey
from sandpost.model.errors import NoRoom
from sandpost.model.limits import EngineName, Tenant
from sandpost.model.messages import RouteKey

MAX_JOINED = 1024
"""Asks that can wait for one sandbox; a proxy needs one."""


@dataclass(slots=True, eq=False, kw_only=True)
class Wait:
    """A sandbox that is wanted: by calls that wait, or (`predecessor`) in place of one that is to leave."""

    tenant: Tenant
    kind: Kind
    """Of the sandbox that is wanted."""
    modules: str = ""
    """The set of modules that it is to be of."""
    exclusive: bool
    until: float
    askers: list[tuple[ProxyKey, int]] = field(default_factory=list)
    req_id: str = ""
    """Of the first call that waits for it."""
    trace_id: str = ""
    predecessor: Sandbox | None = None
    own_start: bool = False
    """Its limits are not those of pooled sandboxes, so one is started for it."""
    sandbox: Sandbox | None = None
    """What is being started for it."""
    number: int = 0
    """Of two waits the earlier one has the lower."""
    over: bool = False
    """It was answered, or nobody wants it any more."""

    @property
    def engine(self) -> EngineName:
        return self.kind[0]

    @property
    def key(self) -> RouteKey:
        return RouteKey(self.tenant.name, self.kind[1], self.modules)


class Waiting:
    """All waits, in the order in which they are to be served."""

    def __init__(self) -> None:
        self._turns: dict[str, dict[int, Wait]] = {}
        """Waits of each tenant, by number; the tenant whose turn is next comes first."""
        self._shared: dict[RouteKey, Wait] = {}
        self._added = 0

    def __bool__(self) -> bool:
        return bool(self._turns)

    def __iter__(self) -> Iterator[Wait]:
        places = ((place, wait) for waits in self._turns.values() for place, wait in enumerate(waits.values()))
        return (wait for _, wait in sorted(places, key=itemgetter(0)))

    def shared(self, key: RouteKey) -> Wait | None:
        """Return the wait that further calls of a tenant join."""
        return self._shared.get(key)

    def of(self, tenant: str, *, exclusive: bool) -> list[Wait]:
        """Return the waits of a tenant for sandboxes of one call each, or those that further calls join."""
        return [wait for wait in self._turns.get(tenant, {}).values() if wait.exclusive == exclusive]

    def add(self, wait: Wait) -> None:
        """Begin a wait; its tenant comes after all others if it has none yet."""
        self._added += 1
        wait.number = self._added
        self._turns.setdefault(wait.tenant.name, {})[wait.number] = wait
        if not wait.exclusive:
            self._shared[wait.key] = wait

    def had_turn(self, tenant: str) -> None:
        """A wait of the tenant's got a sandbox, or its start: all others come before the next one."""
        if tenant in self._turns:
            self._turns[tenant] = self._turns.pop(tenant)

    def join(self, wait: Wait, proxy: ProxyKey, seq: int) -> None:
        """Let another ask wait for the same sandbox; `NoRoom` if too many do."""
        if len(wait.askers) >= MAX_JOINED:
            raise NoRoom(f"too many calls of `{wait.tenant.name}` wait for its sandbox: try later", retry_after=1)
        wait.askers.append((proxy, seq))

    def drop(self, wait: Wait) -> list[tuple[ProxyKey, int]]:
        """End a wait; return whom the caller has to answer. What is started for it is nobody's now."""
        if wait.over:
            return []
        waits = self._turns[wait.tenant.name]
        del waits[wait.number]
        if not waits:
            del self._turns[wait.tenant.name]
        if not wait.exclusive:
            del self._shared[wait.key]
        if wait.predecessor is not None:
            wait.predecessor.replacing = None
        wait.over = True
        wait.sandbox = None
        return wait.askers

    def count(self) -> int:
        """Return how many sandboxes calls wait for."""
        return sum(1 for wait in self if wait.askers)

    def forget_proxy(self, proxy: ProxyKey) -> None:
        """Nobody hears the answers for this proxy."""
        for wait in self:
            wait.askers = [(key, seq) for key, seq in wait.askers if key != proxy]
            self._drop_if_unwanted(wait)

    def forget_predecessor(self, sandbox: Sandbox) -> None:
        """A sandbox that was to be replaced has ended by itself."""
        if sandbox.replacing is None:
            return
        for wait in self:
            if wait.predecessor is sandbox:
                wait.predecessor = None
                self._drop_if_unwanted(wait)

    def _drop_if_unwanted(self, wait: Wait) -> None:
        if not wait.askers and wait.predecessor is None:
            self.drop(wait)


def servable(waits: Iterable[Wait], left: Callable[[Tenant], int]) -> list[Wait]:
    """Return the waits that sandboxes could be given to at once, in their order.

    Of calls that get a sandbox each no more than are `left` to their tenant, besides those whose own is being started:
    the others wait for these, not for the host, which neither counts them nor makes room for them.
    """
    room: dict[str, int] = {}
    found = []
    for wait in waits:
        if wait.exclusive and wait.sandbox is None:
            name = wait.tenant.name
            if name not in room:
                room[name] = left(wait.tenant)
            if room[name] <= 0:
                continue
            room[name] -= 1
        found.append(wait)
    return found

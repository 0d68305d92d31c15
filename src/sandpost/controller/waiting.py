"""Sandboxes that are wanted and not there yet: one entry however many calls of a tenant wait for it."""

from collections.abc import Iterator
from dataclasses import dataclass, field

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
    """All waits, in the order in which they came."""

    def __init__(self) -> None:
        self._waits: dict[int, Wait] = {}
        self._shared: dict[RouteKey, Wait] = {}
        self._added = 0

    def __bool__(self) -> bool:
        return bool(self._waits)

    def __iter__(self) -> Iterator[Wait]:
        return iter(list(self._waits.values()))

    def shared(self, key: RouteKey) -> Wait | None:
        """Return the wait that further calls of a tenant join."""
        return self._shared.get(key)

    def of(self, tenant: str) -> list[Wait]:
        """Return the waits of a tenant that further calls join."""
        return [wait for key, wait in self._shared.items() if key.tenant == tenant]

    def add(self, wait: Wait) -> None:
        """Begin a wait at the end of the queue."""
        self._added += 1
        wait.number = self._added
        self._waits[id(wait)] = wait
        if not wait.exclusive:
            self._shared[wait.key] = wait

    def join(self, wait: Wait, proxy: ProxyKey, seq: int) -> None:
        """Let another ask wait for the same sandbox; `NoRoom` if too many do."""
        if len(wait.askers) >= MAX_JOINED:
            raise NoRoom(f"too many calls of `{wait.tenant.name}` wait for its sandbox: try later", retry_after=1)
        wait.askers.append((proxy, seq))

    def drop(self, wait: Wait) -> list[tuple[ProxyKey, int]]:
        """End a wait; return whom the caller has to answer. What is started for it is nobody's now."""
        if wait.over:
            return []
        del self._waits[id(wait)]
        if not wait.exclusive:
            del self._shared[wait.key]
        if wait.predecessor is not None:
            wait.predecessor.replacing = None
        wait.over = True
        wait.sandbox = None
        return wait.askers

    def count(self) -> int:
        """Return how many sandboxes calls wait for."""
        return sum(1 for wait in self._waits.values() if wait.askers)

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

"""The life of sandboxes and of the routes to them: `starting -> pooled -> assigned -> draining -> gone`.

Pure but for the `Actions` that it is given, which are called in the order that safety needs: what is announced
stands in a record before anybody hears of it, and a slot is given back only when nobody can hold a route to it.

A sandbox serves one tenant, once. `gone` is said to every proxy that may hold a route: every proxy known at that
moment, connected or not. Each owes an acknowledgement until it sends it or its process has ended.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from sandpost.controller.hits import Hits
from sandpost.controller.record import EGRESS, ProxyKey, Record
from sandpost.model.ends import LIMITS, End
from sandpost.model.engines import NEEDS
from sandpost.model.errors import EngineError, MemoryInUse
from sandpost.model.limits import EngineName, Limits
from sandpost.model.messages import Assigned, Gone, Leaving, Phase, Route, RouteKey, Table, Way, Ways

_TABLE_PART = 500
"""Routes in one message; each takes at most 200 bytes."""
_WAYS_PART = 8
"""Ways in one message; the policy of each takes at most 16 KiB."""
_NEXT: dict[Phase, frozenset[Phase]] = {
    "starting": frozenset({"pooled", "assigned", "gone"}),
    "pooled": frozenset({"assigned", "gone"}),
    "assigned": frozenset({"draining", "gone"}),
    "draining": frozenset({"gone"}),
    "gone": frozenset(),
}


Kind = tuple[EngineName, str, int]
"""What makes a sandbox, the runtime in it, and its limit of processes where that is fixed as it starts, else 0. Those
of one kind stand in for one another."""


def kind_of(engine: EngineName, runtime: str, limits: Limits) -> Kind:
    """Return the kind of a sandbox that is started with `limits`."""
    return engine, runtime, limits.pids if NEEDS[engine].fixed_pids else 0


class Forbidden(Exception):  # noqa: N818
    """A step that the life cycle does not have: a fault of ours, never of a tenant."""


class Slots(Protocol):
    """The circle that slots are dealt from."""

    def deal(self) -> int:
        """Take the next free slot; `NoRoom` if there is none."""

    def claim(self, slot: int) -> None:
        """Mark a slot as in use (adoption)."""

    def give_back(self, slot: int) -> None:
        """Make a slot free again."""


class Actions(Protocol):
    """What the life cycle makes happen. Each call has its effect, or is certain to have it, when it returns."""

    def write(self, record: Record) -> None:
        """Replace the record atomically."""

    def erase(self, sandbox_id: str) -> None:
        """Remove the record."""

    def write_roster(self, proxies: Iterable[ProxyKey]) -> None:
        """Write down which proxies may hold routes."""

    def set_limits(self, group_id: str, limits: Limits, engine: EngineName) -> None:
        """Put limits in force on a group; `EngineError` if that fails."""

    def open_way(self, sandbox: "Sandbox") -> None:
        """Let a tenant's sandbox out as its record says, and tell egress; `EngineError` if that fails.

        Nothing changes for one that is let out so already.
        """

    def close_way(self, sandbox: "Sandbox") -> None:
        """Let it out no more."""

    def tell(self, proxy: ProxyKey | None, message: msgspec.Struct) -> None:
        """Send to a proxy or egress; with None to all proxies and the collector, and `Gone` to egress as well."""

    def remove(self, sandbox: "Sandbox") -> None:
        """Begin to kill and remove a sandbox that is gone, after a farewell if one is due; `Fleet.removed` follows."""


@dataclass(slots=True, eq=False)
class Sandbox:
    """One sandbox: its record, and what is known of it besides."""

    record: Record
    # Of the process, until the record has it.
    pid: int = 0
    start_time: int = 0
    # What proxies report.
    in_flight: dict[ProxyKey, int] = field(default_factory=dict)
    last_call_at: float = 0.0
    calls: int = 0
    # Draining: since when, and the word and message it will end with.
    leaving_since: float = 0.0
    leaving: tuple[End, str] = ("drained", "")
    # A successor is on its way, with the word and message that this one will then leave with.
    replacing: tuple[End, str] | None = None
    # The runtime said which call ends it now.
    named: bool = False
    # Gone.
    removed: bool = False
    owing: set[ProxyKey] = field(default_factory=set)
    seq: int = 0
    # While it starts: the tenant in whose group it does, and whose alone it can be.
    joins: str = ""
    # What the engine measured last.
    memory: int = 0
    peak_memory: int = 0
    cpu_seconds: float = 0.0
    pids: int = 0
    hits: Hits = field(default_factory=Hits)

    @property
    def sandbox_id(self) -> str:
        return self.record.sandbox_id

    @property
    def phase(self) -> Phase:
        return self.record.phase

    @property
    def key(self) -> RouteKey:
        """What of its tenant's it serves."""
        return RouteKey(self.record.tenant or "", self.record.runtime, self.record.modules)

    @property
    def kind(self) -> Kind:
        return kind_of(self.record.engine, self.record.runtime, self.record.limits)

    @property
    def calls_in_flight(self) -> int:
        """Calls under way, over all proxies, as last reported."""
        return sum(self.in_flight.values())


class Fleet:
    """All sandboxes of a host, and which proxies may hold routes to them."""

    def __init__(self, actions: Actions, slots: Slots, *, host_port: "HostPort") -> None:
        self._actions = actions
        self._slots = slots
        self._host_port = host_port
        self._seq = time.time_ns() // 1000
        self.sandboxes: dict[str, Sandbox] = {}
        self.routes: dict[RouteKey, Sandbox] = {}
        self.pool: dict[Kind, dict[str, Sandbox]] = {}
        """Ready sandboxes."""
        self.tenants: dict[str, dict[str, Sandbox]] = {}
        """Sandboxes of each tenant that are assigned or draining."""
        self.counts: dict[Phase, int] = dict.fromkeys(_NEXT, 0)
        self._gone: dict[int, Sandbox] = {}
        self._proxies: set[ProxyKey] = set()

    # --- sandboxes ----------------------------------------------------------------------------------------

    def create(self, sandbox_id: str, group_id: str, kind: Kind, image: str, limits: Limits, now: float) -> Sandbox:
        """Begin a sandbox on the next free slot; `NoRoom` if there is none."""
        record = Record(
            sandbox_id=sandbox_id, group_id=group_id, slot=self._slots.deal(), phase="starting",
            engine=kind[0], runtime=kind[1], image=image, limits=limits, started_at=now,
        )  # fmt: skip
        self._actions.write(record)
        return self._admit(record)

    def group(self, key: RouteKey, engine: EngineName) -> str | None:
        """Return the group in which a tenant's sandbox is started: where one of another runtime or set has calls.

        None if there is none: then it gets one of its own.
        """
        for one in self.tenants.get(key.tenant, {}).values():
            if one.key != key and self.routes.get(one.key) is one and one.record.engine == engine:
                return one.record.group_id
        return None

    def pooled(self, sandbox: Sandbox) -> None:
        """It answers its warm-up call: it can be given to a tenant."""
        if sandbox.joins:
            raise Forbidden(f"sandbox {sandbox.sandbox_id} stands in the group of {sandbox.joins}")
        self._advance(sandbox, "pooled", pid=sandbox.pid, start_time=sandbox.start_time)
        self.pool.setdefault(sandbox.kind, {})[sandbox.sandbox_id] = sandbox

    def assign(
        self,
        sandbox: Sandbox,
        tenant: str,
        limits: Limits,
        now: float,
        *,
        egress: str,
        modules: str = "",
        owner: ProxyKey | None = None,
    ) -> Route | None:
        """Give a pooled or just started sandbox to a tenant; with `owner` for one call of that proxy alone.

        It is of no set of modules before its first program is loaded, so any can become one of `modules`.

        None if limits or way could not be set: then the sandbox is gone and nobody has seen it.
        """
        record = sandbox.record
        if record.tenant is not None:
            raise Forbidden(f"sandbox {record.sandbox_id} has served {record.tenant}")
        if sandbox.joins not in {"", tenant}:
            raise Forbidden(f"sandbox {record.sandbox_id} stands in the group of {sandbox.joins}")
        kind = sandbox.kind
        self._advance(
            sandbox, "assigned", tenant=tenant, modules=modules, limits=limits, egress=egress, assigned_at=now,
            exclusive=owner is not None, owner=owner, pid=sandbox.pid or record.pid,
            start_time=sandbox.start_time or record.start_time,
        )  # fmt: skip
        self.pool.get(kind, {}).pop(record.sandbox_id, None)
        sandbox.last_call_at = now
        self.tenants.setdefault(tenant, {})[record.sandbox_id] = sandbox
        if owner is None:
            self.routes[sandbox.key] = sandbox
        try:
            # Most tenants have the limits that the pool was started with: a quarter of an assignment's cost.
            if limits != record.limits:
                self._actions.set_limits(record.group_id, limits, record.engine)
            self._actions.open_way(sandbox)
        except EngineError as error:
            self.end(sandbox, "platform", f"platform: {error.message}")
            return None
        route = self.route(sandbox)
        self._actions.tell(None, Assigned(route=route))
        return route

    def change(self, sandbox: Sandbox, limits: Limits, egress: str) -> None:
        """Put changed limits and policy in force on a tenant's running sandbox; `EngineError` if that fails.

        After `MemoryInUse` all but the limit of memory is in force.
        """
        before = sandbox.record
        if limits == before.limits and egress == before.egress:
            return
        in_use: MemoryInUse | None = None
        if limits != before.limits:
            try:
                self._actions.set_limits(before.group_id, limits, before.engine)
            except MemoryInUse as error:
                in_use = error
        output_changed = limits.output != before.limits.output
        self._store(sandbox, msgspec.structs.replace(before, limits=limits, egress=egress))
        try:
            self._actions.open_way(sandbox)
        except EngineError:
            # Told again, it is tried again.
            self._store(sandbox, before)
            raise
        if output_changed and sandbox.phase == "assigned":
            # Proxies know the route already; the collector takes the new rate from it.
            self._actions.tell(None, Assigned(route=self.route(sandbox)))
        if in_use is not None:
            raise in_use

    def note_calls(self, sandbox: Sandbox) -> None:
        """Write down how many calls it has served."""
        if sandbox.phase != "gone" and sandbox.calls != sandbox.record.calls:
            self._store(sandbox, msgspec.structs.replace(sandbox.record, calls=sandbox.calls))

    def leave(self, sandbox: Sandbox, word: End, message: str, now: float) -> None:
        """Take it out of use: no new calls; it ends with `word` when those in flight are over."""
        self._advance(sandbox, "draining")
        sandbox.leaving_since = now
        sandbox.leaving = (word, message)
        self._drop_route(sandbox)
        self._actions.tell(None, Leaving(sandbox_id=sandbox.sandbox_id))

    def end(self, sandbox: Sandbox, word: End, message: str) -> None:
        """It has ended, or ends now: tell every proxy, remove it, and keep its slot until all have acknowledged."""
        self._advance(sandbox, "gone", word=word, message=message, named=sandbox.named)
        self._forget(sandbox)
        self._depart(sandbox)
        if sandbox.record.tenant is not None:
            self._actions.close_way(sandbox)
            self._actions.tell(None, self._gone_message(sandbox))
        self._actions.remove(sandbox)

    def removed(self, sandbox: Sandbox) -> None:
        """Nothing of it is left on the host: those that stay in its group no longer have what it needed for itself."""
        sandbox.removed = True
        record = sandbox.record
        for other in self.tenants.get(record.tenant or sandbox.joins, {}).values():
            if other.record.group_id == record.group_id and other.phase == "assigned":
                # Refused while more is in use, where the next change of limits does it.
                with contextlib.suppress(EngineError):
                    self._actions.set_limits(record.group_id, other.record.limits, record.engine)
                break
        self._settle(sandbox)

    def adopt(self, record: Record, now: float) -> Sandbox:
        """Take over a sandbox from the record of an earlier controller, as it stands.

        Limits are put in force again: the record was written before they were.
        """
        self._slots.claim(record.slot)
        sandbox = self._admit(record)
        sandbox.pid, sandbox.start_time, sandbox.calls = record.pid, record.start_time, record.calls
        sandbox.last_call_at = now
        if record.phase == "pooled":
            self.pool.setdefault(sandbox.kind, {})[record.sandbox_id] = sandbox
        elif record.phase == "gone":
            self._depart(sandbox)
            self._actions.remove(sandbox)
        elif record.tenant is not None:
            self.tenants.setdefault(record.tenant, {})[record.sandbox_id] = sandbox
            self._resume(sandbox, now)
        return sandbox

    def route(self, sandbox: Sandbox) -> Route:
        """Return where an assigned sandbox answers."""
        record = sandbox.record
        if record.tenant is None:
            raise Forbidden(f"sandbox {record.sandbox_id} has no tenant")
        host, port = self._host_port(record.slot)
        return Route(
            sandbox_id=record.sandbox_id, tenant=record.tenant, runtime=record.runtime, modules=record.modules,
            host=host, port=port, exclusive=record.exclusive, output=record.limits.output,
        )  # fmt: skip

    def table(self) -> Iterator[Table | Leaving]:
        """Return every route, in parts, as one who connects must know them; those that leave first, and said so."""
        leaving = list(self.draining())
        standing = [one for own in self.tenants.values() for one in own.values() if one.phase == "assigned"]
        routes = [msgspec.structs.replace(self.route(sandbox), leaving=True) for sandbox in leaving]
        routes += [self.route(sandbox) for sandbox in standing]
        for start in range(0, max(1, len(routes)), _TABLE_PART):
            part = routes[start : start + _TABLE_PART]
            yield Table(routes=part, last=start + _TABLE_PART >= len(routes))
        for sandbox in leaving:
            yield Leaving(sandbox_id=sandbox.sandbox_id)

    def way(self, sandbox: Sandbox) -> Way:
        """Return what egress must know of a tenant's sandbox."""
        record = sandbox.record
        return Way(
            sandbox_id=record.sandbox_id, tenant=record.tenant or "", address=self._host_port(record.slot)[0],
            egress=record.egress,
        )  # fmt: skip

    def ways(self) -> Iterator[Ways]:
        """Return every way, in parts, as egress must know them when it connects."""
        ways = [self.way(sandbox) for own in self.tenants.values() for sandbox in own.values()]
        for start in range(0, max(1, len(ways)), _WAYS_PART):
            yield Ways(ways=ways[start : start + _WAYS_PART], last=start + _WAYS_PART >= len(ways))

    def draining(self) -> Iterator[Sandbox]:
        """Sandboxes that take no new calls."""
        for sandboxes in self.tenants.values():
            for sandbox in sandboxes.values():
                if sandbox.phase == "draining":
                    yield sandbox

    def departing(self) -> Iterator[Sandbox]:
        """Sandboxes that have ended and are not removed yet."""
        return (sandbox for sandbox in self._gone.values() if not sandbox.removed)

    # --- proxies ------------------------------------------------------------------------------------------

    @property
    def proxies(self) -> frozenset[ProxyKey]:
        """Proxies that may hold routes."""
        return frozenset(self._proxies)

    def expect(self, proxies: Iterable[ProxyKey]) -> None:
        """An earlier controller told these proxies of routes, and their processes live (before any `adopt`)."""
        self._proxies.update(proxies)

    def join(self, proxy: ProxyKey) -> None:
        """A proxy or egress has connected: from now on it may hold routes or ways.

        It gets what it has to forget, then all that stands: what is not in the table is gone without a word.
        """
        if proxy not in self._proxies:
            self._actions.write_roster([*self._proxies, proxy])
            self._proxies.add(proxy)
        for sandbox in self._gone.values():
            if proxy in sandbox.owing:
                self._actions.tell(proxy, self._gone_message(sandbox))
        for message in self.ways() if proxy.index == EGRESS else self.table():
            self._actions.tell(proxy, message)

    def dead(self, proxy: ProxyKey) -> None:
        """Its process has ended: it holds no route, has no call in flight and owes nothing."""
        if proxy not in self._proxies:
            return
        self._proxies.discard(proxy)
        self._actions.write_roster(self._proxies)
        for sandboxes in self.tenants.values():
            for sandbox in sandboxes.values():
                sandbox.in_flight.pop(proxy, None)
        for sandbox in list(self._gone.values()):
            sandbox.owing.discard(proxy)
            self._settle(sandbox)

    def ack(self, proxy: ProxyKey, seq: int) -> None:
        """A proxy holds no route to the sandbox of `Gone(seq)` any more."""
        sandbox = self._gone.get(seq)
        if sandbox is not None:
            sandbox.owing.discard(proxy)
            self._settle(sandbox)

    # --- inside -------------------------------------------------------------------------------------------

    def _admit(self, record: Record) -> Sandbox:
        sandbox = Sandbox(record)
        self.sandboxes[record.sandbox_id] = sandbox
        self.counts[record.phase] += 1
        return sandbox

    def _advance(self, sandbox: Sandbox, phase: Phase, **changes: object) -> None:
        before = sandbox.record
        if phase not in _NEXT[before.phase]:
            raise Forbidden(f"sandbox {before.sandbox_id} is {before.phase} and cannot become {phase}")
        self._store(sandbox, msgspec.structs.replace(before, phase=phase, calls=sandbox.calls, **changes))
        self.counts[before.phase] -= 1
        self.counts[phase] += 1

    def _store(self, sandbox: Sandbox, record: Record) -> None:
        self._actions.write(record)
        sandbox.record = record

    def _depart(self, sandbox: Sandbox) -> None:
        self._seq += 1
        sandbox.seq = self._seq
        self._gone[sandbox.seq] = sandbox
        sandbox.owing = set(self._proxies) if sandbox.record.tenant is not None else set()

    def _resume(self, sandbox: Sandbox, now: float) -> None:
        record = sandbox.record
        if record.phase == "draining":
            sandbox.leaving_since = now
            sandbox.leaving = ("drained", "drained: taken out of use before the controller was restarted")
        if record.phase == "assigned":
            # As when one beside it was removed: more may be in use than one alone may have, and that goes on.
            with contextlib.suppress(EngineError):
                self._actions.set_limits(record.group_id, record.limits, record.engine)
        try:
            self._actions.open_way(sandbox)
        except EngineError as error:
            self.end(sandbox, "platform", f"platform: {error.message}")
            return
        if record.phase == "assigned" and not record.exclusive:
            self._resume_route(sandbox, now)

    def _resume_route(self, sandbox: Sandbox, now: float) -> None:
        """Of two routes of one key (a replacement was cut short) the later one stands."""
        key = sandbox.key
        other = self.routes.get(key)
        if other is None:
            self.routes[key] = sandbox
            return
        old, new = sorted((other, sandbox), key=lambda one: (one.record.assigned_at or 0, one.record.slot))
        self.routes[key] = new
        self.leave(old, "drained", "drained: replaced", now)

    def _drop_route(self, sandbox: Sandbox) -> None:
        if self.routes.get(sandbox.key) is sandbox:
            del self.routes[sandbox.key]

    def _forget(self, sandbox: Sandbox) -> None:
        record = sandbox.record
        self._drop_route(sandbox)
        self.pool.get(sandbox.kind, {}).pop(record.sandbox_id, None)
        if record.tenant is not None and (own := self.tenants.get(record.tenant)) is not None:
            own.pop(record.sandbox_id, None)
            if not own:
                del self.tenants[record.tenant]

    def _gone_message(self, sandbox: Sandbox) -> Gone:
        record = sandbox.record
        word = record.word or "platform"
        limit = LIMITS.get(word)
        return Gone(
            seq=sandbox.seq, sandbox_id=record.sandbox_id, tenant=record.tenant or "", word=word,
            message=record.message, setting=f"limits.{limit}" if limit else "",
            limit=getattr(record.limits, limit) if limit else 0, named=record.named,
        )  # fmt: skip

    def _settle(self, sandbox: Sandbox) -> None:
        if not sandbox.removed or sandbox.owing or sandbox.seq not in self._gone:
            return
        del self._gone[sandbox.seq]
        del self.sandboxes[sandbox.sandbox_id]
        self.counts["gone"] -= 1
        self._actions.erase(sandbox.sandbox_id)
        self._slots.give_back(sandbox.record.slot)


class HostPort(Protocol):
    """Where the sandbox of a slot answers."""

    def __call__(self, slot: int) -> tuple[str, int]:
        """Return address and port."""

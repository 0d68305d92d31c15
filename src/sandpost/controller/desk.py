"""Where sandboxes are asked for: who gets one, who waits, who is refused, and what is started for it.

Pure like the life cycle: it is told what happens and acts through `Fleet` and `Making`. Each `Ask` gets one
answer: `Granted`, or `Refused`, at the latest when its wait ends. Times are a monotonic clock's seconds.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from sandpost.controller import aging, ends, module_sets, pool, room
from sandpost.controller.candidates import candidates, largest
from sandpost.controller.holdback import ENDS, WINDOW, HoldBack
from sandpost.controller.lifecycle import Fleet, Kind, Sandbox, kind_of
from sandpost.controller.lines import Line
from sandpost.controller.record import ProxyKey
from sandpost.controller.waiting import Wait, Waiting, servable
from sandpost.model.ends import End, is_fatal
from sandpost.model.errors import (
    EngineError,
    HeldBack,
    MemoryInUse,
    NoRoom,
    SandpostError,
    Suspended,
    Unavailable,
)
from sandpost.model.limits import EngineName, Limits, Tenant
from sandpost.model.messages import Ask, Granted, Refusal, Refused, Route, RuntimeStatus
from sandpost.model.names import is_module_set, new_sandbox_id
from sandpost.model.runtimes import DEFAULT, RUNTIMES, Runtimes

LONGEST_WAIT = 15.0
"""Seconds after which an `Ask` is refused."""
REPLACE_WAIT = 60.0
REPLACE_AFTER = 3.0
"""A sandbox this young is not replaced at its own wish."""
REMEMBERED = 5.0
"""Seconds for which the api's word about a tenant stands against that of proxies, which may read the store later."""


class Making(Protocol):
    """What the desk needs of the world."""

    def start(self, sandbox: Sandbox) -> None:
        """Begin to make a sandbox; `Desk.ready` or `Desk.failed` follows."""

    def fits(self, engine: EngineName, starting: list[EngineName]) -> bool:
        """Whether memory permits a start by `engine` beside those that are `starting`."""

    def tell(self, proxy: ProxyKey | None, message: Granted | Refused) -> None:
        """Answer a proxy."""


@dataclass(slots=True, kw_only=True)
class Policy:
    """The settings that the desk decides by; replaced as a whole when they change."""

    image: str
    engine: EngineName
    """Of tenants that are set to none."""
    defaults: Limits
    pool_size: int
    parallel_starts: int
    queue: int
    runtimes: Runtimes = field(default_factory=lambda: RUNTIMES)


class Desk:
    """The one place that gives sandboxes to tenants."""

    def __init__(self, fleet: Fleet, making: Making, policy: Policy) -> None:
        self.fleet = fleet
        self.policy = policy
        self.hold = HoldBack()
        self.starting: dict[str, Wait | None] = {}
        """Sandboxes that are being made, with the wait that has its own."""
        self.ends: Counter[str] = Counter()
        self.started = 0
        self.refused: Counter[str] = Counter()
        self.on_end: Callable[[Sandbox], None] = lambda _sandbox: None
        self.on_assigned: Callable[[Sandbox, Wait], None] = lambda _sandbox, _wait: None
        """Called with the id of the call that needed it; empty if none did."""
        self._making = making
        self._lines: dict[tuple[EngineName, str], Line] = {}
        self._arrivals: dict[Kind, pool.Arrivals] = {}
        self._used: set[EngineName] = set()
        self._alone: set[EngineName | None] = set()
        self._used_is_told = False
        self._waits = Waiting()
        self._told: dict[str, tuple[Tenant, float]] = {}

    # --- asking -------------------------------------------------------------------------------------------

    def ask(self, proxy: ProxyKey, ask: Ask, now: float) -> None:
        """A proxy needs a sandbox for a tenant. What this takes from the pool, a later `pump` makes good."""
        tenant = self._latest(ask.tenant, now)
        try:
            route = self._find(proxy, ask, tenant, now)
        except SandpostError as error:
            self._refuse(proxy, ask.seq, error)
            return
        if route is not None:
            self._making.tell(proxy, Granted(seq=ask.seq, route=route))
            return
        self._serve(now)
        if self._waits:
            self._start(now)

    def waiting(self) -> int:
        """Return how many sandboxes are waited for by calls."""
        return self._waits.count()

    def pool_target(self, now: float) -> int:
        """Return how many sandboxes are kept ready now, of all engines together."""
        return sum(self._target(kind, now) for kind in self.kinds())

    def kinds(self) -> list[Kind]:
        """Return the kinds that have a pool, the host's own engine first: that one, and those that tenants are set to.

        Where what `per_request` tenants of an engine share is fixed at a start, it has one for them besides.
        """
        used, alone = set(self._used), {engine or self.policy.engine for engine in self._alone}
        if not self._used_is_told:
            # An earlier controller was told, and we shall be.
            there = {kind for kind, ready in self.fleet.pool.items() if ready}
            used |= {kind[0] for kind in there}
            alone |= {kind[0] for kind in there if kind == self._kind_for(kind[0], kind[1], alone=True)}
        found = []
        for engine in [self.policy.engine, *sorted(used - {self.policy.engine})]:
            for name, runtime in self.policy.runtimes.items():
                kinds = [self._kind_for(engine, name, alone=False)]
                kinds += [self._kind_for(engine, name, alone=True)] if engine in alone else []
                found += [one for one in kinds if runtime.pooled or one in self._arrivals or self.fleet.pool.get(one)]
        return list(dict.fromkeys(found))

    def runtimes(self, now: float) -> dict[str, RuntimeStatus]:
        """Return the figures of each runtime that has a pool or a sandbox."""
        found = {}
        kinds = self.kinds()
        assigned = Counter(key.runtime for key in self.fleet.routes)
        for name in self.policy.runtimes:
            ready = sum(len(pooled) for kind, pooled in self.fleet.pool.items() if kind[1] == name)
            target = sum(self._target(kind, now) for kind in kinds if kind[1] == name)
            if ready or target or assigned[name]:
                found[name] = RuntimeStatus(pool=ready, pool_target=target, assigned=assigned[name])
        return found

    def engines_told(self, engines: Iterable[EngineName], alone: Iterable[EngineName | None]) -> None:
        """The store says which engines tenants are set to; `alone`: `per_request` tenants', None for the host's."""
        self._used, self._alone, self._used_is_told = set(engines), set(alone), True

    def lost(self, proxy: ProxyKey) -> None:
        """A proxy's connection ended: nobody hears the answers it waits for."""
        self._waits.forget_proxy(proxy)

    # --- starts -------------------------------------------------------------------------------------------

    def ready(self, sandbox: Sandbox, seconds: float, now: float) -> None:
        """A start is done, after `seconds`: it goes to who waits, else into the pool."""
        if sandbox.phase != "starting":
            return
        own = self.starting.pop(sandbox.sandbox_id, None)
        self.started += 1
        self._line(sandbox.kind).worked(seconds)
        wait = own if own is not None and not own.over else self._first_for(sandbox)
        if wait is not None:
            self._give(wait, sandbox, now)
        elif self._pool_kind(sandbox):
            self.fleet.pooled(sandbox)
        else:
            self.end(sandbox, "drained", "drained: nobody waits for it any more", now)
        self.pump(now)

    def failed(self, sandbox: Sandbox, message: str, now: float) -> float:
        """A start failed; return the seconds after which `pump` helps."""
        if sandbox.phase == "starting":
            own = self.starting.get(sandbox.sandbox_id)
            self.end(sandbox, "platform", f"platform: {message}", now)
            if sandbox.joins:
                self._joined_in_vain(sandbox.joins, own, message, now)
            else:
                self._count_failure(sandbox.kind, message, now)
        return max(0.0, self._line(sandbox.kind).not_before - now)

    def pump(self, now: float) -> None:
        """Give what is ready to who waits, and start what is missing."""
        self._serve(now)
        self._start(now)

    # --- ends ---------------------------------------------------------------------------------------------

    def end(self, sandbox: Sandbox, word: End, message: str, now: float) -> None:
        """End a sandbox in any phase, or note that it has ended; a second end is nothing new."""
        if sandbox.phase == "gone":
            return
        own = self.starting.pop(sandbox.sandbox_id, None)
        if own is not None:
            own.sandbox = None
        tenant = sandbox.record.tenant
        self.ends[word] += 1
        if tenant is not None and is_fatal(word):
            self.hold.fatal(tenant, now)
        self.fleet.end(sandbox, word, message)
        self.on_end(sandbox)
        self._waits.forget_predecessor(sandbox)

    def replace(self, sandbox: Sandbox, word: End, message: str, now: float) -> None:
        """Make a successor, then let `sandbox` leave. One at a time for a tenant; else nothing happens."""
        record = sandbox.record
        if sandbox.phase != "assigned" or record.exclusive or sandbox.replacing is not None or record.tenant is None:
            return
        key = sandbox.key
        if (
            self._waits.shared(key) is not None
            or self.fleet.routes.get(key) is not sandbox
            or any(one is not sandbox and one.key == key for one in self.fleet.tenants[record.tenant].values())
        ):
            return
        tenant = self._latest(
            Tenant(name=record.tenant, limits=record.limits, egress=record.egress, engine=record.engine), now
        )
        if not self._fits_beside(sandbox):
            return
        sandbox.replacing = (word, message)
        kind, own_start = self._wanted(tenant, record.runtime, exclusive=False)
        self._waits.add(
            Wait(
                tenant=tenant, kind=kind, modules=record.modules, exclusive=False,
                until=now + REPLACE_WAIT, predecessor=sandbox, own_start=own_start,
            )
        )  # fmt: skip
        self.pump(now)

    def _fits_beside(self, sandbox: Sandbox) -> bool:
        """Whether a successor would leave the tenant's sandboxes their memory, where it has to start in their group.

        The kernel would end the largest of them, with its calls. Age and count are looked at again each second.
        """
        record = sandbox.record
        group = self.fleet.group(sandbox.key, record.engine)
        if group is None:
            return True
        beside = self.fleet.tenants.get(record.tenant or "", {}).values()
        used = sum(one.memory for one in beside if one.record.group_id == group)
        return used + room.idle_cost(record.engine) <= record.limits.memory

    def wishes_to_be_replaced(self, sandbox: Sandbox, now: float) -> None:
        """The runtime asks for a successor; it is the tenant's, so it is not heeded at will."""
        assigned_at = sandbox.record.assigned_at
        if assigned_at is not None and now - assigned_at >= REPLACE_AFTER:
            self.replace(sandbox, "drained", "drained: replaced, as its runtime asked for", now)

    def finished(self, sandbox: Sandbox, proxy: ProxyKey, now: float) -> None:
        """The one call of an exclusive sandbox is over."""
        if sandbox.record.exclusive and sandbox.record.owner == proxy:
            self.end(sandbox, "done", "done: its call is over", now)
            self.pump(now)

    def proxy_dead(self, proxy: ProxyKey, now: float) -> None:
        """A proxy's process has ended, and the calls it made with it."""
        self.lost(proxy)
        for sandbox in list(self.fleet.sandboxes.values()):
            if sandbox.record.owner == proxy:
                self.end(sandbox, "done", "done: its call ended with the proxy worker", now)
        self.fleet.dead(proxy)
        self.pump(now)

    # --- tenants ------------------------------------------------------------------------------------------

    def tenant_changed(self, tenant: Tenant, now: float) -> list[EngineError]:
        """Take up what the store says of a tenant; return what could not be put in force."""
        self._told[tenant.name] = (tenant, now)
        if tenant.state == "suspended":
            self._end_all(tenant.name, _suspended(tenant.name), "drained: the tenant is suspended", now)
            return []
        failures = []
        full = set()
        engine = self._engine(tenant)
        for wait in self._waits:
            if wait.tenant.name == tenant.name:
                self._wait_for(wait, tenant)
        for sandbox in list(self.fleet.tenants.get(tenant.name, {}).values()):
            if tenant.isolation == "per_request" and not sandbox.record.exclusive and sandbox.phase == "assigned":
                self.fleet.leave(sandbox, "drained", "drained: every call now has a sandbox of its own", now)
            if sandbox.record.engine != engine and sandbox.phase == "assigned":
                self.fleet.leave(sandbox, "drained", f"drained: the tenant is on {engine} now", now)
            other_egress = tenant.egress != sandbox.record.egress
            try:
                self.fleet.change(sandbox, self._limits(tenant, exclusive=sandbox.record.exclusive), tenant.egress)
            except MemoryInUse:
                full.add(sandbox.record.group_id)
            except EngineError as error:
                failures.append(error)
                if other_egress:
                    # Nobody goes on with more than his policy permits.
                    self.end(sandbox, "platform", f"platform: {error.message}", now)
        for group in full:
            self._end_largest(tenant.name, group, now)
        return failures

    def _end_largest(self, tenant: str, group: str, now: float) -> None:
        """A group has more memory than its limit is now: do as cgroup v2 would, which ends its largest sandbox."""
        own = [one for one in self.fleet.tenants[tenant].values() if one.record.group_id == group]
        # When they are removed the others' limit is set again.
        for one in largest(own):
            self.end(one, "memory", ends.lowered(one.record.limits, share=one.record.exclusive), now)

    def tenant_removed(self, name: str, now: float) -> None:
        """The tenant is no longer registered: what it has ends."""
        self._told.pop(name, None)
        error = Unavailable(f"the tenant `{name}` was being removed: try again", retry_after=1)
        self._end_all(name, error, "drained: the tenant was removed", now)

    # --- once a second ------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what time brings: waits that are over, sandboxes that had their time, the pool's size."""
        for wait in self._waits:
            if now >= wait.until:
                self._refuse_wait(wait, self._too_long(wait))
        for tenant, (_, told) in list(self._told.items()):
            if now - told > REMEMBERED:
                del self._told[tenant]
        self.hold.prune(now)
        for sandboxes in list(self.fleet.tenants.values()):
            for sandbox in list(sandboxes.values()):
                self._age(sandbox, now)
        self._shrink(now)
        self.pump(now)

    # --- inside -------------------------------------------------------------------------------------------

    def _find(self, proxy: ProxyKey, ask: Ask, tenant: Tenant, now: float) -> Route | None:
        """Return a route that stands, or None when the ask now waits."""
        if tenant.state == "suspended":
            raise _suspended(tenant.name)
        if ask.runtime not in self.policy.runtimes:
            raise Unavailable(f"the controller has no runtime `{ask.runtime}` yet: try again", retry_after=1)
        if not is_module_set(ask.modules):
            raise Unavailable("the controller cannot read which modules are wanted: try again", retry_after=1)
        key = ask.key
        if not ask.exclusive:
            if (sandbox := self.fleet.routes.get(key)) is not None:
                return self.fleet.route(sandbox)
            if (wait := self._waits.shared(key)) is not None:
                self._waits.join(wait, proxy, ask.seq)
                return None
        if held := self.hold.held_for(tenant.name, now):
            raise HeldBack(
                f"sandboxes of `{tenant.name}` ended fatally {ENDS} times within {WINDOW:g} s: mend the program",
                retry_after=max(1, round(held + 0.5)),
            )
        self._check_queue(tenant, exclusive=ask.exclusive)
        if ask.modules and not ask.exclusive:
            self._bound_sets(tenant.name, now)
        if tenant.engine is not None:
            self._used.add(tenant.engine)
        if ask.exclusive:
            self._alone.add(tenant.engine)
        kind, own_start = self._wanted(tenant, ask.runtime, exclusive=ask.exclusive)
        joins = not ask.exclusive and self.fleet.group(key, kind[0]) is not None
        if not joins and (not ask.exclusive or self._left(tenant) > 0):
            alone = ask.exclusive and not self.policy.runtimes[ask.runtime].pooled
            common = self._kind_for(kind[0], kind[1], alone=alone) if own_start else kind
            self._arrivals.setdefault(common, pool.Arrivals()).add(now)
        self._waits.add(
            Wait(
                tenant=tenant, kind=kind, modules=ask.modules, exclusive=ask.exclusive, until=now + LONGEST_WAIT,
                askers=[(proxy, ask.seq)], req_id=ask.req_id, trace_id=ask.trace_id, own_start=own_start,
            )
        )  # fmt: skip
        return None

    def _bound_sets(self, tenant: str, now: float) -> None:
        """Make room for one more set of modules: of those that a tenant has, the longest idle one leaves if need be."""
        there = [one for key, one in self.fleet.routes.items() if key.tenant == tenant and key.modules]
        wanted = [wait.key for wait in self._waits.of(tenant, exclusive=False) if wait.modules]
        longest = module_sets.leaves_for_another(there, wanted, tenant, now)
        if longest is not None:
            self.fleet.leave(longest, "drained", "drained: the tenant wants a sandbox of other modules", now)

    def _check_queue(self, tenant: Tenant, *, exclusive: bool) -> None:
        """Refuse when the queue is full. Calls above a `per_request` tenant's budget wait in a queue of its own."""
        if exclusive:
            own = self._waits.of(tenant.name, exclusive=True)
            if len(own) >= self.policy.queue:
                raise self._over_budget(tenant)
            if sum(1 for wait in own if wait.sandbox is None) >= self._left(tenant):
                return
        waiting = sum(1 for wait in self._servable(self._waits) if wait.askers)
        if waiting >= self.policy.queue:
            rate = self._line((self._engine(tenant), DEFAULT, 0)).start_times.rate(self.policy.parallel_starts)
            raise NoRoom(
                f"{waiting} first calls wait for a sandbox already (`queue`): try later",
                retry_after=pool.retry_after(waiting, rate),
            )

    def _first_for(self, sandbox: Sandbox) -> Wait | None:
        """Return the first wait that a sandbox with the pool's limits can serve."""
        if sandbox.joins or not pool.fits_pool(sandbox.record.limits, self.policy.defaults):
            return None
        for wait in self._waits:
            if not self._own_start(wait) and wait.kind == sandbox.kind and self._may_have(wait):
                return wait
        return None

    def _serve(self, now: float) -> None:
        if not any(self.fleet.pool.values()):
            # As in a flood, when there is most to look through.
            return
        for wait in self._waits:
            ready = self.fleet.pool.get(wait.kind)
            if not ready or wait.over or self._own_start(wait) or not self._may_have(wait):
                continue
            self._give(wait, next(iter(ready.values())), now)

    def _give(self, wait: Wait, sandbox: Sandbox, now: float) -> None:
        limits = self._limits(wait.tenant, exclusive=wait.exclusive)
        owner = wait.askers[0][0] if wait.exclusive else None
        route = self.fleet.assign(
            sandbox, wait.tenant.name, limits, now,
            egress=wait.tenant.egress, modules=wait.modules, owner=owner,
        )  # fmt: skip
        if route is None:
            # The sandbox is gone; the wait stands, and gets the next one unless limits cannot be set at all.
            wait.sandbox = None
            self.ends["platform"] += 1
            self.on_end(sandbox)
            self._count_failure(sandbox.kind, sandbox.record.message, now)
            return
        self.on_assigned(sandbox, wait)
        self._waits.had_turn(wait.tenant.name)
        predecessor = wait.predecessor
        leaving = predecessor.replacing if predecessor is not None else None
        for proxy, seq in self._waits.drop(wait):
            self._making.tell(proxy, Granted(seq=seq, route=route))
        if predecessor is not None and leaving is not None and predecessor.phase == "assigned":
            self.fleet.leave(predecessor, *leaving, now)

    def _start(self, now: float) -> None:
        wanted = [wait for wait in self._waits if wait.sandbox is None and now >= self._line(wait.kind).not_before]
        wanted = self._servable(wanted)
        common: Counter[Kind] = Counter()
        coming = sum(1 for wait in self.starting.values() if wait is None)
        places = True
        for wait in wanted:
            if not self._own_start(wait):
                common[wait.kind] += 1
            # What has just begun counts towards the budget of the tenant's other waits.
            elif places and self._may_have(wait) and (self._group(wait) is None or self._may_join()):
                # Those whose turn comes before keep the places that they need.
                kept = max(0, common.total() - coming)
                places = len(self.starting) + kept < self.policy.parallel_starts and self._begin(wait.kind, wait, now)
        # The host's own engine first: more tenants wait for it, and its starts are soon over.
        for kind in sorted(
            {*common, *self.kinds()}, key=lambda kind: (kind[0] != self.policy.engine, -common[kind], kind)
        ):
            if now >= self._line(kind).not_before:
                self._fill(kind, common[kind], now)
        if wanted and not self.starting:
            self._make_room(wanted, now)

    def _fill(self, kind: Kind, waiting: int, now: float) -> None:
        """Start what the pool lacks of a kind, and what `waiting` calls wait for."""
        ours = sum(1 for key, wait in self.starting.items() if wait is None and self.fleet.sandboxes[key].kind == kind)
        more = pool.starts(
            waiting=waiting,
            pooled=len(self.fleet.pool.get(kind, ())),
            target=self._target(kind, now) if kind in self.kinds() else 0,
            starting=ours,
            parallel=self.policy.parallel_starts - (len(self.starting) - ours),
        )
        for _ in range(more):
            if not self._begin(kind, None, now):
                break

    def _begin(self, kind: Kind, wait: Wait | None, now: float) -> bool:
        if not self._making.fits(kind[0], [self._engine_of(sandbox_id) for sandbox_id in self.starting]):
            return False
        limits = self._limits(wait.tenant, exclusive=wait.exclusive) if wait is not None else self._stock(kind)
        try:
            group = self._group(wait) if wait is not None else None
            sandbox = self.fleet.create(
                new_sandbox_id(), group or new_sandbox_id(), kind, self.policy.image, limits, now
            )  # fmt: skip
        except NoRoom:
            return False
        if wait is not None:
            wait.sandbox = sandbox
            self._waits.had_turn(wait.tenant.name)
            sandbox.joins = wait.tenant.name if group is not None else ""
        self.starting[sandbox.sandbox_id] = wait
        self._making.start(sandbox)
        return True

    def _make_room(self, wanted: list[Wait], now: float) -> None:
        """Nothing can be started: the longest idle sandboxes leave, or else those who wait are refused."""
        leaving = sum(1 for _ in self.fleet.draining()) + sum(1 for _ in self.fleet.departing())
        missing = wanted[leaving:]
        if not missing:
            return
        cost = sum(room.idle_cost(wait.engine) for wait in missing)
        # No more than are needed if each frees the least that one takes.
        chosen = room.longest_idle(candidates(self.fleet, now), cost)[: -(-cost // room.idle_cost("runc"))]
        for sandbox_id in chosen:
            message = "evicted: its memory was needed for another tenant"
            self.fleet.leave(self.fleet.sandboxes[sandbox_id], "evicted", message, now)
        if chosen or leaving:
            return
        for wait in wanted:
            after = pool.retry_after(len(wanted), self._line(wait.kind).start_times.rate(1))
            self._refuse_wait(wait, NoRoom("the host has no room for another sandbox: try later", retry_after=after))

    def _may_have(self, wait: Wait) -> bool:
        if wait.exclusive:
            return self._left(wait.tenant) > 0
        for other in self._waits.of(wait.tenant.name, exclusive=False):
            if other is wait:
                continue
            # One after another, so that all of them come into one group.
            if other.sandbox is not None or (wait.predecessor is not None and other.predecessor is None):
                return False
            if other.predecessor is None and other.number < wait.number and self._group(wait) is None:
                return False
        return True

    def _group(self, wait: Wait) -> str | None:
        """Return the group of its tenant's in which its sandbox is started, if there is one."""
        return None if wait.exclusive else self.fleet.group(wait.key, wait.engine)

    def _own_start(self, wait: Wait) -> bool:
        """Whether no sandbox of the pool will do."""
        return wait.own_start or wait.sandbox is not None or self._group(wait) is not None

    def _may_join(self) -> bool:
        """Whether a start in a tenant's group may begin: what runs there can slow it, so others keep places."""
        joining = sum(1 for key in self.starting if self.fleet.sandboxes[key].joins)
        return joining < max(1, self.policy.parallel_starts // 2)

    def _joined_in_vain(self, tenant: str, wait: Wait | None, message: str, now: float) -> None:
        """A start in a tenant's group failed: what runs there may be the cause, so it counts against him alone."""
        self.hold.fatal(tenant, now)
        if wait is not None:
            error = f"a further sandbox of `{tenant}` did not start within the tenant's limits ({message}): try later"
            self._refuse_wait(wait, NoRoom(error, retry_after=1))

    def _line(self, kind: Kind) -> Line:
        return self._lines.setdefault(kind[:2], Line())

    def _servable(self, waits: Iterable[Wait]) -> list[Wait]:
        return [wait for wait in servable(waits, self._left) if wait.exclusive or self._may_have(wait)]

    def _left(self, tenant: Tenant) -> int:
        """Return how many more sandboxes a `per_request` tenant may have, besides those it has or is getting."""
        has = len(self.fleet.tenants.get(tenant.name, ()))
        has += sum(
            1 for wait in self.starting.values()
            if wait is not None and wait.sandbox is not None and wait.tenant.name == tenant.name
        )  # fmt: skip
        return pool.at_once(tenant.limits.per_request_at_once, self.policy.pool_size) - has

    def _limits(self, tenant: Tenant, *, exclusive: bool) -> Limits:
        return pool.share(tenant.limits, tenant.limits.per_request_at_once) if exclusive else tenant.limits

    def _pool_kind(self, sandbox: Sandbox) -> bool:
        return (
            not sandbox.joins
            and sandbox.kind in self.kinds()
            and pool.fits_pool(sandbox.record.limits, self.policy.defaults)
        )

    def _wanted(self, tenant: Tenant, runtime: str, *, exclusive: bool) -> tuple[Kind, bool]:
        """Return the kind that a tenant gets, and whether the pool has none of it: one is started for him then."""
        limits = self._limits(tenant, exclusive=exclusive)
        kind = kind_of(self._engine(tenant), runtime, limits)
        return kind, kind not in self.kinds() or not pool.fits_pool(limits, self.policy.defaults)

    def _kind_for(self, engine: EngineName, runtime: str, *, alone: bool) -> Kind:
        """Return the kind that the pool has for tenants with the default limits, `alone` for `per_request` ones."""
        defaults = self.policy.defaults
        return kind_of(engine, runtime, pool.share(defaults, defaults.per_request_at_once) if alone else defaults)

    def _stock(self, kind: Kind) -> Limits:
        """Return the limits with which a sandbox of the pool is started."""
        defaults = self.policy.defaults
        if kind == self._kind_for(kind[0], kind[1], alone=False):
            return defaults
        return msgspec.structs.replace(pool.share(defaults, defaults.per_request_at_once), pids=kind[2])

    def _wait_for(self, wait: Wait, tenant: Tenant) -> None:
        """The tenant of a wait is set otherwise now: what is started for it is nobody's, unless it will do."""
        if tenant.isolation == "per_request" and not wait.exclusive:
            error = f"calls of `{tenant.name}` have just been set to a sandbox each: try again"
            self._refuse_wait(wait, Unavailable(error, retry_after=1))
            return
        wait.tenant = tenant
        wait.kind, wait.own_start = self._wanted(tenant, wait.kind[1], exclusive=wait.exclusive)
        begun = wait.sandbox
        if begun is not None:
            limits = self._limits(tenant, exclusive=wait.exclusive)
            if begun.kind != wait.kind or not pool.fits_pool(limits, begun.record.limits):
                self.starting[begun.sandbox_id] = None
                wait.sandbox = None

    def _engine(self, tenant: Tenant) -> EngineName:
        return tenant.engine or self.policy.engine

    def _engine_of(self, sandbox_id: str) -> EngineName:
        return self.fleet.sandboxes[sandbox_id].record.engine

    def _target(self, kind: Kind, now: float) -> int:
        setting = self.policy.pool_size
        if kind != self._kind_for(kind[0], kind[1], alone=False):
            # No tenant has more of them at once.
            setting = -(-setting // 2)
        runtime = self.policy.runtimes.get(kind[1])
        rate = self._arrivals.setdefault(kind, pool.Arrivals()).rate(now)
        return pool.target(setting, rate) if runtime is None or runtime.pooled else pool.learned(setting, rate)

    def _latest(self, tenant: Tenant, now: float) -> Tenant:
        told = self._told.get(tenant.name)
        return told[0] if told is not None and now - told[1] <= REMEMBERED else tenant

    def _age(self, sandbox: Sandbox, now: float) -> None:
        verdict = aging.verdict(sandbox, now)
        if verdict is None:
            return
        if verdict.step == "end":
            self.end(sandbox, verdict.word, verdict.message, now)
        elif verdict.step == "leave":
            self.fleet.leave(sandbox, verdict.word, verdict.message, now)
        else:
            self.replace(sandbox, verdict.word, verdict.message, now)

    def _shrink(self, now: float) -> None:
        """Let go of pooled sandboxes of an older image, and of one that is too many."""
        kinds = self.kinds()
        for kind, ready in list(self.fleet.pool.items()):
            for sandbox in list(ready.values()):
                if (
                    kind not in kinds
                    or sandbox.record.image != self.policy.image
                    or not pool.fits_pool(sandbox.record.limits, self.policy.defaults)
                ):
                    self.end(sandbox, "drained", "drained: its image, limits or engine are no longer the pool's", now)
        for kind in kinds:
            ready = self.fleet.pool.get(kind, {})
            if len(ready) > self._target(kind, now):
                self.end(next(iter(ready.values())), "drained", "drained: the pool has more than it needs", now)

    def _end_all(self, tenant: str, error: SandpostError, message: str, now: float) -> None:
        for wait in self._waits:
            if wait.tenant.name == tenant:
                self._refuse_wait(wait, error)
        for sandbox in list(self.fleet.tenants.get(tenant, {}).values()):
            self.end(sandbox, "drained", message, now)

    def _count_failure(self, kind: Kind, message: str, now: float) -> None:
        if self._line(kind).failed(now):
            error = Unavailable(f"sandboxes cannot be started ({message}): see the controller's log", retry_after=5)
            for wait in self._waits:
                if wait.kind[:2] == kind[:2]:
                    self._refuse_wait(wait, error)

    def _too_long(self, wait: Wait) -> SandpostError:
        if wait in self._servable(self._waits):
            return NoRoom(f"no sandbox became free within {LONGEST_WAIT:g} s: try later", retry_after=5)
        return self._over_budget(wait.tenant)

    def _over_budget(self, tenant: Tenant) -> NoRoom:
        count = pool.at_once(tenant.limits.per_request_at_once, self.policy.pool_size)
        return NoRoom(
            f"more calls of `{tenant.name}` wait than the {count} sandboxes serve that it may have at once"
            " (`limits.per_request_at_once`, and at most half the pool): try later",
            retry_after=1,
        )

    def _refuse_wait(self, wait: Wait, error: SandpostError) -> None:
        for proxy, seq in self._waits.drop(wait):
            self._refuse(proxy, seq, error)

    def _refuse(self, proxy: ProxyKey, seq: int, error: SandpostError) -> None:
        self.refused[error.reason] += 1
        refusal = Refusal(
            reason=error.reason, status=error.status, message=error.message,
            fault=error.fault, retryable=error.retryable, retry_after=error.retry_after,
        )  # fmt: skip
        self._making.tell(proxy, Refused(seq=seq, refusal=refusal))


def _suspended(name: str) -> Suspended:
    return Suspended(f"the tenant `{name}` is suspended: ask the operator")

"""Where sandboxes are asked for: who gets one, who waits, who is refused, and what is started for it.

Pure like the life cycle: it is told what happens and acts through `Fleet` and `Making`. Each `Ask` gets one
answer: `Granted`, or `Refused`, at the latest when its wait ends. Times are a monotonic clock's seconds.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from sandpost.controller import aging, pool, room
from sandpost.controller.holdback import ENDS, WINDOW, HoldBack
from sandpost.controller.lifecycle import Fleet, Kind, Sandbox, kind_of
from sandpost.controller.lines import Line
from sandpost.controller.record import ProxyKey
from sandpost.controller.waiting import Wait, Waiting
from sandpost.model.ends import End, is_fatal
from sandpost.model.engines import ENGINES, NEEDS
from sandpost.model.errors import EngineError, HeldBack, NoRoom, SandpostError, Suspended, Unavailable
from sandpost.model.limits import EngineName, Limits, Tenant
from sandpost.model.messages import Ask, Granted, Refusal, Refused, Route
from sandpost.model.names import new_sandbox_id

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
        self.on_assigned: Callable[[Sandbox, str], None] = lambda _sandbox, _req_id: None
        """Called with the id of the call that needed it; empty if none did."""
        self._making = making
        self._lines: dict[EngineName, Line] = {engine: Line() for engine in ENGINES}
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
            alone |= {kind[0] for kind in there if kind == self._kind_for(kind[0], alone=True)}
        found = []
        for engine in [self.policy.engine, *sorted(used - {self.policy.engine})]:
            found += [self._kind_for(engine, alone=False)]
            found += [self._kind_for(engine, alone=True)] if engine in alone else []
        return list(dict.fromkeys(found))

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
        self._lines[sandbox.record.engine].worked(seconds)
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
            self.end(sandbox, "platform", f"platform: {message}", now)
            self._count_failure(sandbox.record.engine, message, now)
        return max(0.0, self._lines[sandbox.record.engine].not_before - now)

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
        key = (record.tenant, record.runtime)
        if (
            self._waits.shared(*key) is not None
            or self.fleet.routes.get(key) is not sandbox
            or len(self.fleet.tenants[key[0]]) > 1
        ):
            return
        tenant = self._latest(
            Tenant(name=record.tenant, limits=record.limits, egress=record.egress, engine=record.engine), now
        )
        sandbox.replacing = (word, message)
        kind, own_start = self._wanted(tenant, record.runtime, exclusive=False)
        self._waits.add(
            Wait(
                tenant=tenant, kind=kind, exclusive=False,
                until=now + REPLACE_WAIT, predecessor=sandbox, own_start=own_start,
            )
        )  # fmt: skip
        self.pump(now)

    def wishes_to_be_replaced(self, sandbox: Sandbox, now: float) -> None:
        """The runtime asks for a successor; it is the tenant's, so it is not heeded at will."""
        assigned_at = sandbox.record.assigned_at
        if assigned_at is not None and now - assigned_at >= REPLACE_AFTER:
            self.replace(sandbox, "drained", "drained: replaced, its unloaded programs did not free their memory", now)

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
        engine = self._engine(tenant)
        for wait in self._waits:
            if wait.tenant.name == tenant.name and wait.engine != engine:
                self._wait_for(wait, tenant)
        for sandbox in list(self.fleet.tenants.get(tenant.name, {}).values()):
            if tenant.isolation == "per_request" and not sandbox.record.exclusive and sandbox.phase == "assigned":
                self.fleet.leave(sandbox, "drained", "drained: every call now has a sandbox of its own", now)
            if sandbox.record.engine != engine and sandbox.phase == "assigned":
                self.fleet.leave(sandbox, "drained", f"drained: the tenant is on {engine} now", now)
            other_egress = tenant.egress != sandbox.record.egress
            try:
                self.fleet.change(sandbox, self._limits(tenant, exclusive=sandbox.record.exclusive), tenant.egress)
            except EngineError as error:
                failures.append(error)
                if other_egress:
                    # Nobody goes on with more than his policy permits.
                    self.end(sandbox, "platform", f"platform: {error.message}", now)
        return failures

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

    def candidates(self, now: float) -> Iterator[room.Candidate]:
        """Sandboxes of tenants, for whoever must choose which of them end."""
        for sandboxes in self.fleet.tenants.values():
            for one in sandboxes.values():
                guaranteed = one.record.limits.memory_guaranteed + NEEDS[one.record.engine].memory
                yield room.Candidate(
                    sandbox_id=one.sandbox_id,
                    memory=one.memory,
                    guaranteed=guaranteed,
                    idle_for=aging.idle_for(one, now) if one.phase == "assigned" else 0.0,
                )

    # --- inside -------------------------------------------------------------------------------------------

    def _find(self, proxy: ProxyKey, ask: Ask, tenant: Tenant, now: float) -> Route | None:
        """Return a route that stands, or None when the ask now waits."""
        if tenant.state == "suspended":
            raise _suspended(tenant.name)
        if not ask.exclusive:
            if (sandbox := self.fleet.routes.get((tenant.name, ask.runtime))) is not None:
                return self.fleet.route(sandbox)
            if (wait := self._waits.shared(tenant.name, ask.runtime)) is not None:
                self._waits.join(wait, proxy, ask.seq)
                return None
        if held := self.hold.held_for(tenant.name, now):
            raise HeldBack(
                f"sandboxes of `{tenant.name}` ended fatally {ENDS} times within {WINDOW:g} s: mend the program",
                retry_after=max(1, round(held + 0.5)),
            )
        self._check_queue(tenant, exclusive=ask.exclusive)
        if tenant.engine is not None:
            self._used.add(tenant.engine)
        if ask.exclusive:
            self._alone.add(tenant.engine)
        kind, own_start = self._wanted(tenant, ask.runtime, exclusive=ask.exclusive)
        if not ask.exclusive or not self._at_budget(tenant):
            common = self._kind_for(kind[0], alone=False) if own_start else kind
            self._arrivals.setdefault(common, pool.Arrivals()).add(now)
        self._waits.add(
            Wait(
                tenant=tenant, kind=kind, exclusive=ask.exclusive, until=now + LONGEST_WAIT,
                askers=[(proxy, ask.seq)], req_id=ask.req_id, own_start=own_start,
            )
        )  # fmt: skip
        return None

    def _check_queue(self, tenant: Tenant, *, exclusive: bool) -> None:
        """Refuse when the queue is full. Calls above a `per_request` tenant's budget wait in a queue of its own."""
        if exclusive and self._at_budget(tenant):
            own = sum(1 for wait in self._waits if wait.exclusive and wait.tenant.name == tenant.name)
            if own >= self.policy.queue:
                raise self._over_budget(tenant)
            return
        waiting = sum(1 for wait in self._waits if wait.askers and self._may_have(wait))
        if waiting >= self.policy.queue:
            rate = self._lines[self._engine(tenant)].start_times.rate(self.policy.parallel_starts)
            raise NoRoom(
                f"{waiting} first calls wait for a sandbox already (`queue`): try later",
                retry_after=pool.retry_after(waiting, rate),
            )

    def _first_for(self, sandbox: Sandbox) -> Wait | None:
        """Return the first wait that a sandbox with the pool's limits can serve."""
        if not pool.fits_pool(sandbox.record.limits, self.policy.defaults):
            return None
        for wait in self._waits:
            if not wait.own_start and wait.kind == sandbox.kind and self._may_have(wait):
                return wait
        return None

    def _serve(self, now: float) -> None:
        for wait in self._waits:
            ready = self.fleet.pool.get(wait.kind)
            if not ready or wait.own_start or wait.over or not self._may_have(wait):
                continue
            self._give(wait, next(iter(ready.values())), now)

    def _give(self, wait: Wait, sandbox: Sandbox, now: float) -> None:
        limits = self._limits(wait.tenant, exclusive=wait.exclusive)
        owner = wait.askers[0][0] if wait.exclusive else None
        route = self.fleet.assign(sandbox, wait.tenant.name, limits, now, egress=wait.tenant.egress, owner=owner)
        if route is None:
            # The sandbox is gone; the wait stands, and gets the next one unless limits cannot be set at all.
            wait.sandbox = None
            self.ends["platform"] += 1
            self.on_end(sandbox)
            self._count_failure(sandbox.record.engine, sandbox.record.message, now)
            return
        self.on_assigned(sandbox, wait.req_id)
        predecessor = wait.predecessor
        leaving = predecessor.replacing if predecessor is not None else None
        for proxy, seq in self._waits.drop(wait):
            self._making.tell(proxy, Granted(seq=seq, route=route))
        if predecessor is not None and leaving is not None and predecessor.phase == "assigned":
            self.fleet.leave(predecessor, *leaving, now)

    def _start(self, now: float) -> None:
        engines = [engine for engine, line in self._lines.items() if now >= line.not_before]
        wanted = [wait for wait in self._waits if wait.sandbox is None and wait.engine in engines]
        wanted = [wait for wait in wanted if self._may_have(wait)]
        own = [wait for wait in wanted if wait.own_start]
        for wait in own:
            # What has just begun counts towards the budget of the tenant's other waits.
            if not self._may_have(wait):
                continue
            if len(self.starting) >= self.policy.parallel_starts or not self._begin(wait.kind, wait, now):
                break
        # The host's own engine first: more tenants wait for it, and its starts are soon over.
        common = Counter(wait.kind for wait in wanted if not wait.own_start)
        for kind in sorted(
            {*common, *self.kinds()}, key=lambda kind: (kind[0] != self.policy.engine, -common[kind], kind)
        ):
            if kind[0] in engines:
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
            sandbox = self.fleet.create(new_sandbox_id(), new_sandbox_id(), kind, self.policy.image, limits, now)
        except NoRoom:
            return False
        if wait is not None:
            wait.sandbox = sandbox
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
        chosen = room.longest_idle(self.candidates(now), cost)[: -(-cost // room.idle_cost("runc"))]
        for sandbox_id in chosen:
            message = "evicted: its memory was needed for another tenant"
            self.fleet.leave(self.fleet.sandboxes[sandbox_id], "evicted", message, now)
        if chosen or leaving:
            return
        for wait in wanted:
            after = pool.retry_after(len(wanted), self._lines[wait.engine].start_times.rate(1))
            self._refuse_wait(wait, NoRoom("the host has no room for another sandbox: try later", retry_after=after))

    def _may_have(self, wait: Wait) -> bool:
        return not wait.exclusive or not self._at_budget(wait.tenant)

    def _at_budget(self, tenant: Tenant) -> bool:
        """Whether a `per_request` tenant has, or is getting, all the sandboxes it may have at once."""
        has = len(self.fleet.tenants.get(tenant.name, ()))
        has += sum(
            1 for wait in self.starting.values()
            if wait is not None and wait.sandbox is not None and wait.tenant.name == tenant.name
        )  # fmt: skip
        return has >= pool.at_once(tenant.limits.per_request_at_once, self.policy.pool_size)

    def _limits(self, tenant: Tenant, *, exclusive: bool) -> Limits:
        return pool.share(tenant.limits, tenant.limits.per_request_at_once) if exclusive else tenant.limits

    def _pool_kind(self, sandbox: Sandbox) -> bool:
        return sandbox.kind in self.kinds() and pool.fits_pool(sandbox.record.limits, self.policy.defaults)

    def _wanted(self, tenant: Tenant, runtime: str, *, exclusive: bool) -> tuple[Kind, bool]:
        """Return the kind that a tenant gets, and whether the pool has none of it: one is started for him then."""
        limits = self._limits(tenant, exclusive=exclusive)
        kind = kind_of(self._engine(tenant), runtime, limits)
        return kind, kind not in self.kinds() or not pool.fits_pool(limits, self.policy.defaults)

    def _kind_for(self, engine: EngineName, *, alone: bool) -> Kind:
        """Return the kind that the pool has for tenants with the default limits, `alone` for `per_request` ones."""
        defaults = self.policy.defaults
        return kind_of(engine, "node", pool.share(defaults, defaults.per_request_at_once) if alone else defaults)

    def _stock(self, kind: Kind) -> Limits:
        """Return the limits with which a sandbox of the pool is started."""
        defaults = self.policy.defaults
        if kind == self._kind_for(kind[0], alone=False):
            return defaults
        return msgspec.structs.replace(pool.share(defaults, defaults.per_request_at_once), pids=kind[2])

    def _wait_for(self, wait: Wait, tenant: Tenant) -> None:
        """The tenant of a wait is on another engine now: what is being started for it is nobody's."""
        if wait.sandbox is not None:
            self.starting[wait.sandbox.sandbox_id] = None
            wait.sandbox = None
        wait.tenant = tenant
        wait.kind, wait.own_start = self._wanted(tenant, wait.runtime, exclusive=wait.exclusive)

    def _engine(self, tenant: Tenant) -> EngineName:
        return tenant.engine or self.policy.engine

    def _engine_of(self, sandbox_id: str) -> EngineName:
        return self.fleet.sandboxes[sandbox_id].record.engine

    def _target(self, kind: Kind, now: float) -> int:
        setting = self.policy.pool_size
        if kind != self._kind_for(kind[0], alone=False):
            # No tenant has more of them at once.
            setting = -(-setting // 2)
        return pool.target(setting, self._arrivals.setdefault(kind, pool.Arrivals()).rate(now))

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

    def _count_failure(self, engine: EngineName, message: str, now: float) -> None:
        if self._lines[engine].failed(now):
            error = Unavailable(f"sandboxes cannot be started ({message}): see the controller's log", retry_after=5)
            for wait in self._waits:
                if wait.engine == engine:
                    self._refuse_wait(wait, error)

    def _too_long(self, wait: Wait) -> SandpostError:
        if self._may_have(wait):
            return NoRoom(f"no sandbox became free within {LONGEST_WAIT:g} s: try later", retry_after=5)
        return self._over_budget(wait.tenant)

    def _over_budget(self, tenant: Tenant) -> NoRoom:
        count = pool.at_once(tenant.limits.per_request_at_once, self.policy.pool_size)
        return NoRoom(
            f"all {count} sandboxes that `{tenant.name}` may have at once are busy"
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

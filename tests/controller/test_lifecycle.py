"""The state machine under random schedules: starts, calls, deaths, restarts, and proxies that come, go and ack late."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sandpost.controller import pool
from sandpost.controller.adoption import adopt
from sandpost.controller.desk import LONGEST_WAIT, Desk, Policy
from sandpost.controller.lifecycle import Fleet, Forbidden, Sandbox
from sandpost.controller.module_sets import SETS
from sandpost.controller.record import ProxyKey, Record
from sandpost.model.ends import ALL
from sandpost.model.errors import EngineError, NoRoom
from sandpost.model.limits import EngineName, Limits, MiB, Tenant
from sandpost.model.messages import Ask, Assigned, Gone, Granted, Leaving, Refused, Route, RouteKey, Table

SLOTS = 5
POOL = 2
SHARED = ["a", "b", "c"]
ALONE = "per-request"
ODD = "odd-tmp"
TENANTS = {
    **{name: Tenant(name=name) for name in SHARED},
    ALONE: Tenant(name=ALONE, isolation="per_request"),
    ODD: Tenant(name=ODD, limits=Limits(tmp=1 * MiB)),
}


class Killed(BaseException):
    """The controller's process is killed here."""


@dataclass(eq=False)
class Proxy:
    """A proxy process as the rules of the wire make it: it reads in order and acknowledges when it has let go."""

    key: ProxyKey
    connection: int = 0
    """0: not connected. Each connection has a number of its own."""
    inbox: deque[msgspec.Struct] = field(default_factory=deque)
    routes: dict[str, Route] = field(default_factory=dict)
    incoming: dict[str, Route] = field(default_factory=dict)
    owed: list[int] = field(default_factory=list)
    asked: dict[int, set[int]] = field(default_factory=dict)
    """Unanswered asks of each connection."""

    def slots_held(self) -> set[int]:
        """Slots that it could send a call to, now or after what it has yet to read."""
        routes = [*self.routes.values(), *self.incoming.values()]
        for message in self.inbox:
            if isinstance(message, Assigned | Granted):
                routes.append(message.route)
            elif isinstance(message, Table):
                routes.extend(message.routes)
        return {int(route.host) for route in routes}

    def read(self) -> None:
        message = self.inbox.popleft()
        if isinstance(message, Table):
            self.incoming.update({route.sandbox_id: route for route in message.routes})
            if message.last:
                self.routes, self.incoming = self.incoming, {}
        elif isinstance(message, Assigned | Granted):
            self.routes[message.route.sandbox_id] = message.route
        elif isinstance(message, Gone):
            self.routes.pop(message.sandbox_id, None)
            self.owed.append(message.seq)


class World:
    """What survives a controller: the disk, what runs, the proxies. Also the engine and the circle of slots."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.roster: set[ProxyKey] = set()
        self.running: set[str] = set()
        self.proxies: dict[ProxyKey, Proxy] = {}
        self.announced: dict[str, str] = {}
        """Which tenant was told for each sandbox, ever."""
        self.said_gone: set[str] = set()
        self.answers: dict[tuple[int, int], int] = {}
        self.room = True
        self.limits_fail = False
        self.tenants = dict(TENANTS)
        """As the store has them."""
        self.ways: dict[int, tuple[str, str]] = {}
        """The firewall: tenant and policy of each slot that is let out."""
        self.fixed: dict[str, int] = {}
        """The limit of processes that each sandbox was started with."""
        self.fuse: int | None = None

    def step(self) -> None:
        """An action of the controller; the fuse decides whether it dies just before."""
        if self.fuse is not None:
            if self.fuse == 0:
                raise Killed
            self.fuse -= 1


class Hands:
    """The actions of one controller's life."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.used: set[int] = set()
        self.free = list(range(SLOTS))
        self.to_start: list[Sandbox] = []
        self.to_remove: list[Sandbox] = []

    # Slots
    def deal(self) -> int:
        """The worst circle there could be: what came back last goes out first."""
        if not self.free:
            raise NoRoom("no slot")
        slot = self.free.pop()
        assert slot not in self.world.ways, "dealt with a way that is open"
        held = {key: proxy.slots_held() for key, proxy in self.world.proxies.items()}
        assert not any(slot in slots for slots in held.values()), f"slot {slot} dealt while held: {held}"
        self.used.add(slot)
        return slot

    def claim(self, slot: int) -> None:
        self.free.remove(slot)
        self.used.add(slot)

    def give_back(self, slot: int) -> None:
        self.used.remove(slot)
        self.free.append(slot)

    # Actions
    def write(self, record: Record) -> None:
        self.world.step()
        before = self.world.records.get(record.sandbox_id)
        assert before is None or before.tenant in {None, record.tenant}, "a sandbox changed its tenant"
        if record.tenant is not None:
            beside = {one.tenant for one in self.world.records.values() if one.group_id == record.group_id}
            assert beside <= {None, record.tenant}, "two tenants stand in one group"
        # What goes to disk is bytes, and comes back the same.
        self.world.records[record.sandbox_id] = msgspec.json.decode(msgspec.json.encode(record), type=Record)

    def erase(self, sandbox_id: str) -> None:
        self.world.step()
        del self.world.records[sandbox_id]

    def write_roster(self, proxies: Iterable[ProxyKey]) -> None:
        self.world.step()
        self.world.roster = set(proxies)

    def set_limits(self, group_id: str, limits: Limits, engine: EngineName) -> None:
        self.world.step()
        if self.world.limits_fail:
            raise EngineError("the group cannot be written")

    def open_way(self, sandbox: Sandbox) -> None:
        self.world.step()
        record = self.world.records[sandbox.sandbox_id]
        assert record.phase in {"assigned", "draining"}
        if self.world.limits_fail:
            raise EngineError("the firewall cannot be written")
        self.world.ways[record.slot] = (record.tenant or "", record.egress)

    def close_way(self, sandbox: Sandbox) -> None:
        self.world.step()
        self.world.ways.pop(sandbox.record.slot, None)

    def tell(self, proxy: ProxyKey | None, message: Any) -> None:
        self.world.step()
        world = self.world
        if isinstance(message, Assigned):
            record = world.records[message.route.sandbox_id]
            assert world.ways[record.slot] == (record.tenant, record.egress), "told before its way is open"
            assert record.phase == "assigned"
            assert record.tenant == message.route.tenant
            assert world.announced.setdefault(record.sandbox_id, message.route.tenant) == message.route.tenant
        if isinstance(message, Gone):
            assert world.records[message.sandbox_id].phase == "gone"
            assert world.records[message.sandbox_id].tenant == message.tenant
            world.said_gone.add(message.sandbox_id)
        if isinstance(message, Leaving):
            assert world.records[message.sandbox_id].phase == "draining"
        for key, one in world.proxies.items():
            if one.connection and (proxy is None or key == proxy):
                if isinstance(message, Granted | Refused):
                    asked = one.asked[one.connection]
                    assert message.seq in asked, "answered twice, or never asked"
                    asked.remove(message.seq)
                if isinstance(message, Granted):
                    assert world.records[message.route.sandbox_id].phase == "assigned"
                one.inbox.append(message)

    def remove(self, sandbox: Sandbox) -> None:
        self.world.step()
        self.to_remove.append(sandbox)
        self.world.running.discard(sandbox.sandbox_id)

    # Making
    def start(self, sandbox: Sandbox) -> None:
        self.world.step()
        assert self.world.records[sandbox.sandbox_id].phase == "starting"
        self.world.fixed[sandbox.sandbox_id] = sandbox.record.limits.pids
        self.to_start.append(sandbox)

    def fits(self, engine: EngineName, starting: list[EngineName]) -> bool:
        return self.world.room


workers = st.integers(0, 1)
runtimes = st.sampled_from(["node", "python"])
sets = st.sampled_from(["", "", "a==1", "b", "c", "d", "e"])


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.now = 1000.0
        self.pids = iter(range(1, 10_000))
        self.connections = iter(range(1, 100_000))
        self.seqs = iter(range(1, 100_000))
        self.workers: list[Proxy] = []
        self.boot()
        self.desk.pump(self.now)
        for index in range(2):
            self.workers.append(self.new_proxy(index))
            self.proxy_connects(index)

    # --- the controller's process ---------------------------------------------------------------------------

    def boot(self) -> None:
        """A controller starts on what the world has."""
        for proxy in self.world.proxies.values():
            self.disconnect(proxy)
        self.hands = Hands(self.world)
        fleet = Fleet(self.hands, self.hands, host_port=lambda slot: (str(slot), 8000))
        policy = Policy(image="i", engine="runc", defaults=Limits(), pool_size=POOL, parallel_starts=2, queue=4)
        self.desk = Desk(fleet, self.hands, policy)
        fuse, self.world.fuse = self.world.fuse, None
        # As `Ways.begin`: whose record does not say that he has a tenant loses what he has.
        self.world.ways = {
            record.slot: (record.tenant, record.egress)
            for record in self.world.records.values()
            if record.tenant is not None and record.phase in {"assigned", "draining"}
        }
        adopt(
            self.desk,
            list(self.world.records.values()),
            [key for key in self.world.roster if key in self.world.proxies],
            runs=lambda record: record.sandbox_id in self.world.running,
            answers=lambda record: record.slot % 3 != 0,
            cause=lambda record: ("crash", "crash: while no controller was there"),
            now=self.now,
        )
        self.world.fuse = fuse

    def run(self, step: Any, *arguments: Any) -> None:
        """Let the controller do something; it may be killed on the way."""
        try:
            step(*arguments)
        except Killed:
            self.world.fuse = None
            self.boot()

    @rule()
    def controller_is_killed_and_started(self) -> None:
        self.boot()

    @rule(actions=st.integers(0, 6))
    def controller_will_be_killed(self, actions: int) -> None:
        self.world.fuse = actions

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 20.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.run(self.desk.tick, self.now)

    @rule()
    def pump(self) -> None:
        self.run(self.desk.pump, self.now)

    # --- the engine -----------------------------------------------------------------------------------------

    @precondition(lambda self: self.hands.to_start)
    @rule(which=st.integers(0, 9), works=st.sampled_from([True, True, True, False]))
    def start_ends(self, which: int, works: bool) -> None:
        sandbox = self.hands.to_start.pop(which % len(self.hands.to_start))
        if works:
            if sandbox.phase == "starting":
                self.world.running.add(sandbox.sandbox_id)
            sandbox.pid, sandbox.start_time = 4711, 1
            self.run(self.desk.ready, sandbox, 0.1, self.now)
        else:
            self.run(self.desk.failed, sandbox, "no", self.now)

    @precondition(lambda self: self.hands.to_remove)
    @rule(which=st.integers(0, 9))
    def removal_ends(self, which: int) -> None:
        sandbox = self.hands.to_remove.pop(which % len(self.hands.to_remove))

        def removed() -> None:
            self.desk.fleet.removed(sandbox)
            self.desk.pump(self.now)

        self.run(removed)

    @precondition(lambda self: self.world.running)
    @rule(which=st.integers(0, 99), word=st.sampled_from(ALL))
    def sandbox_dies(self, which: int, word: Any) -> None:
        running = sorted(self.world.running, key=lambda sandbox_id: self.world.records[sandbox_id].slot)
        sandbox = self.desk.fleet.sandboxes[running[which % len(running)]]
        self.world.running.discard(sandbox.sandbox_id)
        self.run(self.desk.end, sandbox, word, word, self.now)

    @precondition(lambda self: self.hands.to_start)
    @rule()
    def sandbox_dies_while_it_starts(self) -> None:
        self.run(self.desk.end, self.hands.to_start[0], "platform", "platform: died", self.now)

    @rule(room=st.booleans())
    def memory_changes(self, room: bool) -> None:
        self.world.room = room

    @rule(fail=st.booleans())
    def groups_fail(self, fail: bool) -> None:
        self.world.limits_fail = fail

    # --- proxies --------------------------------------------------------------------------------------------

    def new_proxy(self, index: int) -> Proxy:
        proxy = Proxy(ProxyKey(next(self.pids), index))
        self.world.proxies[proxy.key] = proxy
        return proxy

    @rule(index=workers)
    def proxy_connects(self, index: int) -> None:
        proxy = self.workers[index]
        if not proxy.connection:
            proxy.connection = next(self.connections)
            proxy.asked[proxy.connection] = set()
            self.run(self.desk.fleet.join, proxy.key)

    @rule()
    def all_proxies_connect(self) -> None:
        for index in range(2):
            self.proxy_connects(index)

    @rule(index=workers)
    def proxy_is_disconnected(self, index: int) -> None:
        proxy = self.workers[index]
        if proxy.connection:
            self.disconnect(proxy)
            self.run(self.desk.lost, proxy.key)

    @rule(index=workers)
    def proxy_dies(self, index: int) -> None:
        proxy = self.workers[index]
        self.disconnect(proxy)
        del self.world.proxies[proxy.key]
        self.workers[index] = self.new_proxy(index)
        self.run(self.desk.proxy_dead, proxy.key, self.now)

    def disconnect(self, proxy: Proxy) -> None:
        """What was not read is lost with the connection; what was read stays."""
        proxy.asked.pop(proxy.connection, None)
        proxy.connection = 0
        proxy.inbox.clear()
        proxy.incoming.clear()
        proxy.owed.clear()

    @rule(index=workers, count=st.integers(1, 8))
    def proxy_reads(self, index: int, count: int) -> None:
        proxy = self.workers[index]
        for _ in range(min(count, len(proxy.inbox))):
            proxy.read()

    @rule(index=workers)
    def proxy_acknowledges(self, index: int) -> None:
        proxy = self.workers[index]
        owed, proxy.owed = proxy.owed, []
        for seq in owed:
            if proxy.connection:
                self.run(self.desk.fleet.ack, proxy.key, seq)

    @rule()
    def engine_catches_up(self) -> None:
        while self.hands.to_remove:
            self.removal_ends(0)
        while self.hands.to_start:
            self.start_ends(0, works=True)

    @rule()
    def everybody_catches_up(self) -> None:
        """A quiet moment: what was begun ends, what was sent is read and acknowledged."""
        self.engine_catches_up()
        for index in range(2):
            self.proxy_reads(index, 1000)
            self.proxy_acknowledges(index)

    @rule(
        index=workers, tenant=st.sampled_from(sorted(TENANTS)), times=st.integers(1, 4), runtime=runtimes, modules=sets
    )
    def proxy_asks(self, index: int, tenant: str, times: int, runtime: str, modules: str) -> None:
        proxy = self.workers[index]
        for _ in range(times):
            if proxy.connection:
                seq = next(self.seqs)
                proxy.asked[proxy.connection].add(seq)
                value = self.world.tenants[tenant]
                ask = Ask(
                    seq=seq,
                    tenant=value,
                    runtime=runtime,
                    modules=modules,
                    exclusive=value.isolation == "per_request",
                )
                self.run(self.desk.ask, proxy.key, ask, self.now)

    @rule(index=workers, in_flight=st.integers(0, 2))
    def proxy_reports(self, index: int, in_flight: int) -> None:
        proxy = self.workers[index]
        for sandbox_id in proxy.routes if proxy.connection else ():
            if (sandbox := self.desk.fleet.sandboxes.get(sandbox_id)) is not None:
                sandbox.in_flight[proxy.key] = in_flight
                sandbox.last_call_at = self.now

    @rule(index=workers)
    def proxy_finishes(self, index: int) -> None:
        proxy = self.workers[index]
        for sandbox_id in list(proxy.routes):
            if proxy.connection and (sandbox := self.desk.fleet.sandboxes.get(sandbox_id)) is not None:
                self.run(self.desk.finished, sandbox, proxy.key, self.now)

    @rule(tenant=st.sampled_from(SHARED), runtime=runtimes, modules=sets)
    def runtime_wants_a_successor(self, tenant: str, runtime: str, modules: str) -> None:
        if (sandbox := self.desk.fleet.routes.get(RouteKey(tenant, runtime, modules))) is not None:
            self.run(self.desk.wishes_to_be_replaced, sandbox, self.now)

    # --- the api --------------------------------------------------------------------------------------------

    @rule(
        tenant=st.sampled_from(sorted(TENANTS)),
        state=st.sampled_from(["active", "suspended", "removed"]),
        egress=st.sampled_from(["public", "none"]),
    )
    def tenant_changes(self, tenant: str, state: Any, egress: str) -> None:
        if state == "removed":
            self.run(self.desk.tenant_removed, tenant, self.now)
        else:
            changed = msgspec.structs.replace(self.world.tenants[tenant], state=state, egress=egress)
            self.run(self.desk.tenant_changed, changed, self.now)

    @rule(tenant=st.sampled_from(sorted(TENANTS)), engine=st.sampled_from([None, "runc", "runsc"]))
    def tenant_moves_to_another_engine(self, tenant: str, engine: Any) -> None:
        changed = msgspec.structs.replace(self.world.tenants[tenant], engine=engine)
        self.world.tenants[tenant] = changed
        self.run(self.desk.tenant_changed, changed, self.now)
        # The api tells a controller that was killed meanwhile again when it is back.
        self.world.fuse = None
        self.run(self.desk.tenant_changed, changed, self.now)

    @rule()
    def engines_are_told(self) -> None:
        tenants = self.world.tenants.values()
        alone = {one.engine for one in tenants if one.isolation == "per_request"}
        self.run(self.desk.engines_told, {one.engine for one in tenants if one.engine}, alone)

    # --- what always holds ----------------------------------------------------------------------------------

    @invariant()
    def ways_are_open_for_whom_the_records_say_and_nobody_else(self) -> None:
        wanted = {
            record.slot: (record.tenant, record.egress)
            for record in self.world.records.values()
            if record.tenant is not None and record.phase in {"assigned", "draining"}
        }
        assert self.world.ways == wanted

    @invariant()
    def records_say_what_stands(self) -> None:
        fleet = self.desk.fleet
        assert {key: one.record for key, one in fleet.sandboxes.items()} == self.world.records
        for sandbox_id, record in self.world.records.items():
            told = self.world.announced.get(sandbox_id)
            assert told in {None, record.tenant}
            if record.phase in {"starting", "pooled"}:
                assert told is None
                assert record.tenant is None
            if sandbox_id in self.world.said_gone:
                assert record.phase == "gone"

    @invariant()
    def every_slot_is_used_once(self) -> None:
        slots = [record.slot for record in self.world.records.values()]
        assert len(slots) == len(set(slots))
        assert set(slots) == self.hands.used

    @invariant()
    def what_a_proxy_holds_is_its_tenants(self) -> None:
        for proxy in self.world.proxies.values():
            for sandbox_id, route in proxy.routes.items():
                record = self.world.records[sandbox_id]
                assert record.tenant == route.tenant
                assert record.slot == int(route.host)

    @invariant()
    def counts_are_true(self) -> None:
        fleet = self.desk.fleet
        phases = [one.phase for one in fleet.sandboxes.values()]
        assert {phase: phases.count(phase) for phase in fleet.counts} == fleet.counts
        assert set(self.desk.starting) == {key for key, one in fleet.sandboxes.items() if one.phase == "starting"}
        assert {key for ready in fleet.pool.values() for key in ready} == {
            key for key, one in fleet.sandboxes.items() if one.phase == "pooled"
        }

    @invariant()
    def a_tenant_has_one_route_for_each_key_and_keeps_to_its_budget(self) -> None:
        fleet = self.desk.fleet
        for name, own in fleet.tenants.items():
            assigned = [one for one in own.values() if one.phase == "assigned"]
            keys = [one.key for one in assigned if not one.record.exclusive]
            assert len(keys) == len(set(keys))
            assert sum(1 for key in keys if key[2]) <= SETS
            exclusive = [one for one in assigned if one.record.exclusive]
            assert len(exclusive) <= pool.at_once(2, POOL)
            memory = sum(one.record.limits.memory for one in exclusive)
            assert memory <= TENANTS[name].limits.memory
        for (name, *_), sandbox in fleet.routes.items():
            assert sandbox.record.engine == (self.world.tenants[name].engine or "runc")
            assert sandbox.phase == "assigned"
            assert sandbox.record.tenant == name

    @invariant()
    def where_processes_are_limited_from_the_start_it_is_to_what_the_tenant_may_have(self) -> None:
        for sandbox_id, record in self.world.records.items():
            if record.engine == "runsc" and record.phase in {"assigned", "draining"}:
                assert self.world.fixed[sandbox_id] == record.limits.pids

    @invariant()
    def what_waits_is_bounded(self) -> None:
        # The queue, that of `per_request`, and what waits behind a tenant's own first: its other runtime, its sets.
        behind = (len(TENANTS) - 1) * (SETS + 1)
        assert self.desk.waiting() <= 4 + 4 + behind
        assert len(self.desk.starting) <= 2

    def teardown(self) -> None:
        """Time and patience answer every ask, and give every slot back when all has ended."""
        self.world.fuse = None
        self.world.limits_fail = False
        self.now += LONGEST_WAIT + 1
        self.desk.tick(self.now)
        for proxy in self.world.proxies.values():
            assert not proxy.asked.get(proxy.connection), "an ask was never answered"
        for sandbox in list(self.desk.fleet.sandboxes.values()):
            self.desk.end(sandbox, "drained", "", self.now)
        for sandbox in self.hands.to_remove:
            self.desk.fleet.removed(sandbox)
        self.hands.to_remove.clear()
        # Whoever was away comes back and is told what it has to forget; nobody has to die for a slot.
        self.all_proxies_connect()
        self.everybody_catches_up()
        assert not self.world.records
        assert not self.hands.used


Life.TestCase.settings = settings(
    max_examples=150, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLife = Life.TestCase


@pytest.fixture
def fleet() -> Fleet:
    hands = Hands(World())
    return Fleet(hands, hands, host_port=lambda slot: (str(slot), 8000))


def test_the_pool_has_a_share_for_per_request_tenants_where_it_is_fixed_at_the_start(fleet: Fleet) -> None:
    policy = Policy(image="i", engine="runc", defaults=Limits(), pool_size=5, parallel_starts=2, queue=4)
    desk = Desk(fleet, Hands(World()), policy)
    kinds = [("runc", "node", 0), ("runsc", "node", 64), ("runsc", "node", 32)]
    desk.engines_told([], [None])
    assert (desk.kinds(), desk.pool_target(1.0)) == (kinds[:1], 5)
    desk.engines_told(["runsc"], [None])
    assert (desk.kinds(), desk.pool_target(1.0)) == (kinds[:2], 10)
    desk.engines_told(["runsc"], [None, "runsc"])
    assert (desk.kinds(), desk.pool_target(1.0)) == (kinds, 13)
    policy.engine = "runsc"
    desk.engines_told([], [None])
    assert desk.kinds() == kinds[1:]
    # Where each may have all of it there is one kind.
    policy.defaults = Limits(per_request_at_once=1)
    assert desk.kinds() == kinds[1:2]


def test_a_sandbox_never_returns_to_the_pool(fleet: Fleet) -> None:
    sandbox = fleet.create("s", "g", ("runc", "node", 0), "i", Limits(), 1.0)
    fleet.pooled(sandbox)
    assert fleet.assign(sandbox, "a", Limits(), 2.0, egress="public") is not None
    with pytest.raises(Forbidden):
        fleet.pooled(sandbox)


def test_a_sandbox_is_given_to_one_tenant_once(fleet: Fleet) -> None:
    sandbox = fleet.create("s", "g", ("runc", "node", 0), "i", Limits(), 1.0)
    fleet.assign(sandbox, "a", Limits(), 2.0, egress="public")
    with pytest.raises(Forbidden):
        fleet.assign(sandbox, "b", Limits(), 3.0, egress="public")
    fleet.leave(sandbox, "idle", "", 4.0)
    with pytest.raises(Forbidden):
        fleet.assign(sandbox, "b", Limits(), 5.0, egress="public")


def test_nothing_follows_gone(fleet: Fleet) -> None:
    sandbox = fleet.create("s", "g", ("runc", "node", 0), "i", Limits(), 1.0)
    fleet.end(sandbox, "platform", "")
    with pytest.raises(Forbidden):
        fleet.pooled(sandbox)
    with pytest.raises(Forbidden):
        fleet.end(sandbox, "crash", "")

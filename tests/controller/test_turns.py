"""Calls that get a sandbox each, beside tenants that want their first one: who waits for whom, who leaves for whom.

Starts and calls take simulated time: START seconds, of which three go on at once, and CALL seconds.
"""

import heapq
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost.controller.desk import Policy
from sandpost.controller.lifecycle import Sandbox
from sandpost.controller.waiting import Wait, Waiting
from sandpost.model.limits import Limits, MiB, Tenant
from sandpost.model.messages import Ask, Granted, Refused
from support.desk_bed import PROXY, Bench

START, CALL, PARALLEL = 0.1, 0.01, 3
QUEUE = 128
CALLS = 100
"""Of each tenant that floods: as many as a tenant may have under way."""


def default_bench() -> Bench:
    bench = Bench()
    bench.desk.policy = Policy(
        image="i", engine="runc", defaults=Limits(), pool_size=8, parallel_starts=PARALLEL, queue=QUEUE
    )
    return bench


class Crowd:
    """Tenants that keep CALLS calls under way, and new tenants that come one after another."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.bench = default_bench()
        self.limits = limits or Limits()
        """Of those that flood."""
        self.waited: list[float] = []
        """Seconds, of new tenants that were served."""
        self.refused = 0
        """New tenants that were not."""
        self.calls = 0
        """Served to those that flood."""
        self._asked: dict[int, tuple[Tenant, float]] = {}
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = count()

    def run(self, floods: int, *, until: float = 8.0) -> None:
        self._at(0.0, self.bench.desk.pump)
        self._repeat(0.06, self.bench.desk.pump)
        self._repeat(1.0, self.bench.desk.tick)
        for flood in range(floods):
            tenant = Tenant(name=f"flood{flood}", isolation="per_request", limits=self.limits)
            for call in range(CALLS):
                self._at(1.0 + call / 1000, partial(self._ask, tenant))
        names = count()
        self._repeat(0.1, lambda now: self._ask(Tenant(name=f"new{next(names)}"), now) if now > 2 else None)
        while self._events and self._events[0][0] < until:
            now, _, event = heapq.heappop(self._events)
            event(now)
            self._settle(now)

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._number), event))

    def _repeat(self, every: float, event: Callable[[float], None]) -> None:
        def again(now: float) -> None:
            event(now)
            self._at(now + every, again)

        self._at(every, again)

    def _ask(self, tenant: Tenant, now: float) -> None:
        seq = next(self._number)
        self._asked[seq] = tenant, now
        exclusive = tenant.isolation == "per_request"
        self.bench.desk.ask(PROXY, Ask(seq=seq, tenant=tenant, runtime="node", exclusive=exclusive), now)

    def _settle(self, now: float) -> None:
        host = self.bench.host
        while host.to_start:
            sandbox = host.to_start.pop()
            self._at(now + START, partial(self.bench.desk.ready, sandbox, START))
        told, host.told = host.told, []
        for message in told:
            if isinstance(message, Granted):
                tenant, asked = self._asked.pop(message.seq)
                if tenant.isolation == "per_request":
                    self.calls += 1
                    sandbox = self.bench.fleet.sandboxes[message.route.sandbox_id]
                    self._at(now + CALL, partial(self._over, sandbox, tenant))
                else:
                    self.waited.append(now - asked)
            elif isinstance(message, Refused):
                tenant, _ = self._asked.pop(message.seq)
                if tenant.isolation == "per_request":
                    self._at(now + 0.05, partial(self._ask, tenant))
                else:
                    self.refused += 1

    def _over(self, sandbox: Sandbox, tenant: Tenant, now: float) -> None:
        self.bench.desk.finished(sandbox, PROXY, now)
        self.bench.fleet.removed(sandbox)
        self._ask(tenant, now)


@pytest.mark.parametrize(
    "limits", [pytest.param(Limits(), id="pooled"), pytest.param(Limits(tmp=1 * MiB), id="started-for-them")]
)
@pytest.mark.parametrize("floods", [1, 2, 12])
def test_a_new_tenant_waits_for_one_sandbox_of_each_other_at_most(floods: int, limits: Limits) -> None:
    crowd = Crowd(limits)
    crowd.run(floods)
    assert crowd.refused == 0
    assert len(crowd.waited) > 45
    # One start of each that came before, as many at once as there are places, and the one that goes on.
    assert max(crowd.waited) < START * (2 + (floods + 1) / PARALLEL)
    # They are not starved for it either.
    assert crowd.calls > 10 * floods


def test_calls_that_wait_for_their_tenants_own_are_no_part_of_the_common_queue() -> None:
    bench = default_bench()
    for _ in range(QUEUE):
        bench.ask("flood", "node", exclusive=True)
    assert bench.desk.refused == {}
    bench.ask("flood", "node", exclusive=True)
    assert bench.desk.refused == {"no_room": 1}
    (refused,) = [one for one in bench.host.told if isinstance(one, Refused)]
    assert "per_request_at_once" in refused.refusal.message
    # Two of them might be served at once.
    for number in range(QUEUE - 2):
        bench.ask(f"new{number}", "node")
    assert bench.desk.refused == {"no_room": 1}
    bench.ask("one more", "node")
    assert bench.desk.refused == {"no_room": 2}


@pytest.mark.parametrize("calls", [1, 2, CALLS])
def test_no_more_sandboxes_leave_for_a_tenants_calls_than_can_be_served_at_once(calls: int) -> None:
    bench = default_bench()
    for number in range(10):
        bench.ask(f"rests{number}", "node")
        bench.finish()
    for own in bench.fleet.tenants.values():
        for sandbox in own.values():
            sandbox.memory = 12 * MiB
    bench.host.has_room = False
    for sandbox in [one for ready in bench.fleet.pool.values() for one in ready.values()]:
        bench.desk.end(sandbox, "drained", "", 2.0)
        bench.fleet.removed(sandbox)
    for _ in range(calls):
        bench.seq += 1
        tenant = Tenant(name="flood", isolation="per_request")
        bench.desk.ask(PROXY, Ask(seq=bench.seq, tenant=tenant, runtime="node", exclusive=True), 100.0)
    bench.desk.pump(100.0)
    assert len(list(bench.fleet.draining())) == min(calls, 2)


def wait(tenant: str) -> Wait:
    return Wait(tenant=Tenant(name=tenant), kind=("runc", "node", 0), exclusive=True, until=0.0)


def names(waits: Iterator[Wait]) -> str:
    return "".join(one.tenant.name for one in waits)


def test_tenants_have_turns() -> None:
    waits = Waiting()
    all_waits = [wait(tenant) for tenant in "aaabac"]
    for one in all_waits:
        waits.add(one)
    assert names(iter(waits)) == "abcaaa"
    waits.had_turn("a")
    waits.drop(all_waits[0])
    assert names(iter(waits)) == "bcaaa"
    waits.had_turn("b")
    waits.drop(all_waits[3])
    waits.add(wait("b"))
    assert names(iter(waits)) == "cabaa"
    waits.had_turn("nobody")


@given(st.lists(st.sampled_from("abcd")))
def test_all_waits_are_there_and_those_of_a_tenant_in_their_order(tenants: list[str]) -> None:
    waits = Waiting()
    for tenant in tenants:
        waits.add(wait(tenant))
    assert sorted(one.number for one in waits) == list(range(1, len(tenants) + 1))
    for tenant in set(tenants):
        own = [one.number for one in waits if one.tenant.name == tenant]
        assert own == sorted(own)
        assert own == [one.number for one in waits.of(tenant, exclusive=True)]

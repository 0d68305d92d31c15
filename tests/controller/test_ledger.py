"""Usage is told exactly once, whatever is killed when."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sandpost.controller import ledger as module
from sandpost.controller.ledger import Ledger, Snapshot
from sandpost.model.messages import Usage, UsageItem


class Telling(RuleBasedStateMachine):
    """A controller with a ledger that is written down before a batch is told, and an api that remembers batches."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.disk = Snapshot()
        self.seen: set[str] = set()
        self.stored = 0
        self.added = 0
        self.safe = 0
        self.on_the_way: list[Usage] = []
        self.answers: list[str] = []

    def write(self) -> None:
        self.disk = msgspec.json.decode(msgspec.json.encode(self.ledger.snapshot()), type=Snapshot)
        self.safe = self.added

    @rule(tenant=st.sampled_from("abc"), hour=st.integers(1, 3), calls=st.integers(1, 5))
    def calls_are_made(self, tenant: str, hour: int, calls: int) -> None:
        self.ledger.add(UsageItem(tenant=tenant, hour=hour, calls=calls))
        self.added += calls

    @rule()
    def controller_tells(self) -> None:
        batch = self.ledger.batch()
        if batch is not None:
            self.write()
            self.on_the_way.append(batch)

    @rule()
    def controller_is_killed(self) -> None:
        """What was added since the last writing is lost; no more."""
        self.ledger = Ledger(self.disk)
        self.added = self.safe

    @precondition(lambda self: self.on_the_way)
    @rule(lost=st.booleans())
    def api_stores(self, lost: bool) -> None:
        batch = self.on_the_way.pop(0)
        if batch.batch not in self.seen:
            self.seen.add(batch.batch)
            self.stored += sum(item.calls for item in batch.items)
        if not lost:
            self.answers.append(batch.batch)

    @precondition(lambda self: self.answers)
    @rule()
    def answer_arrives(self) -> None:
        self.ledger.taken(self.answers.pop(0))

    @invariant()
    def nothing_is_counted_twice(self) -> None:
        assert self.stored <= self.added

    def teardown(self) -> None:
        for _ in range(3):
            self.controller_tells()
            while self.on_the_way:
                self.api_stores(lost=False)
            while self.answers:
                self.answer_arrives()
        assert self.stored == self.added, "something was lost"


Telling.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTelling = Telling.TestCase


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=20))
def test_processor_seconds_are_counted_once_and_never_backwards(readings: list[float]) -> None:
    ledger = Ledger()
    counted = 0.0
    for number, seconds in enumerate(readings):
        cpu, since = ledger.reading("s", seconds, float(number))
        assert cpu >= 0
        assert since == min(number, 1)
        counted += cpu
    assert abs(counted - max(readings)) < 1e-6


def test_without_an_api_the_oldest_hours_are_given_up_at_the_bound(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 10)
    ledger = Ledger()
    for hour in range(15):
        ledger.add(UsageItem(tenant="a", hour=hour, calls=1))
    assert ledger.lost == 5
    batch = ledger.batch()
    assert batch is not None
    assert [item.hour for item in batch.items] == list(range(5, 15))


def test_a_batch_fits_into_a_packet() -> None:
    ledger = Ledger()
    for number in range(2 * module.MAX_ITEMS):
        ends = dict.fromkeys(("memory", "blocked", "exit", "crash", "idle", "age", "count", "done"), 10**6)
        ledger.add(
            UsageItem(
                tenant=f"{number:063d}", hour=500_000, calls=10**9, cpu_seconds=1.23456789e9, memory_seconds=1.23e18,
                bytes_in=1 << 60, bytes_out=1 << 60, ends=ends,
            )
        )  # fmt: skip
    batch = ledger.batch()
    assert batch is not None
    assert len(batch.items) == module.MAX_ITEMS
    assert len(msgspec.msgpack.encode(batch)) <= 160 * 1024

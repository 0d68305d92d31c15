"""What a case's answers and the neighbour's calls mean."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from sandpost.selftest.case import Answer, Attacker, Broken, Case, answered, typed
from sandpost.selftest.catalogue import Named
from sandpost.selftest.neighbour import RATE, Neighbour, Quiet
from sandpost.selftest.runner import Runner, Verdict, harmed


def answer(status: int, body: bytes) -> Answer:
    return Answer(status, {}, body)


def test_a_typed_error_is_status_reason_setting_message_and_id() -> None:
    body = b'{"reason":"memory","setting":"limits.memory","message":"m","req_id":"r"}'
    assert typed(answer(500, body), 500, "memory", "limits.memory") == "500 memory"
    for wrong in (
        answer(200, body),
        answer(500, body.replace(b"memory", b"crash", 1)),
        answer(500, body.replace(b"limits.memory", b"limits.cpu")),
        answer(500, body.replace(b'"message":"m",', b"")),
        answer(500, body.replace(b'"req_id":"r"', b'"x":1')),
        answer(500, b"not JSON"),
    ):
        with pytest.raises(Broken):
            typed(wrong, 500, "memory", "limits.memory")


def test_served_is_the_value_and_nothing_else() -> None:
    assert answered(answer(200, b'"v"'), "v") == "served"
    for wrong in (answer(200, b'"w"'), answer(500, b'"v"'), answer(200, b"")):
        with pytest.raises(Broken):
            answered(wrong, "v")


def test_one_lost_call_or_one_of_over_a_second_is_harm() -> None:
    assert harmed(Quiet.of([(0.0, 0.9, "")] * 100)) == ""
    assert "lost 1 of 101 calls: 502" in harmed(Quiet.of([(0.0, 0.1, "")] * 100 + [(0.0, 0.1, "502")]))
    assert "took 1.10 s" in harmed(Quiet.of([(0.0, 0.1, "")] * 100 + [(0.0, 1.1, "")]))


def test_a_stall_counts_for_every_call_that_was_due_meanwhile() -> None:
    stalled_until = 0.0

    def call() -> str:
        time.sleep(max(0.0, stalled_until - time.monotonic()))
        return ""

    with Neighbour(call) as neighbour:
        began = time.monotonic()
        time.sleep(0.2)
        stalled_until = time.monotonic() + 0.5
        time.sleep(0.8)
        seen = neighbour.since(began)
    late = RATE * 0.5
    assert seen.calls >= late
    assert seen.slowest > 0.4
    # A client that waits for each answer before its next call would have seen a handful.
    assert seen.p50 < seen.p99
    assert seen.p99 > 0.4


def test_it_is_called_as_often_as_was_said() -> None:
    with Neighbour(lambda: "", rate=5) as neighbour:
        began = time.monotonic()
        time.sleep(1.1)
        seen = neighbour.since(began)
    assert 4 <= seen.calls <= 7


class Host:
    """A client and a door of a host on which a case makes the neighbour wait so many times, or costs him calls."""

    def __init__(self, waits: int, *, lost: bool = False) -> None:
        self.waits, self.lost = waits, lost
        self.answers = threading.Event()
        self.answers.set()
        self.put: list[str] = []
        self.there: set[str] = set()

    def attack(self, me: Attacker) -> str:
        """Be the case."""
        if self.waits:
            self.waits -= 1
            self.answers.clear()
            time.sleep(1.3)
            self.answers.set()
        return "tried"

    def call(self, tenant: str, program: str, timeout: float) -> Answer:
        """Answer as a runtime would."""
        if tenant.endswith("-beside"):
            waited = not self.answers.is_set()
            self.answers.wait()
            if waited and self.lost:
                raise ConnectionResetError
        return answer(200, b'"Hello, world!"')

    def put_tenant(self, name: str, document: object) -> None:
        """Make a tenant."""
        self.put.append(name)
        self.there.add(name)

    def tenant(self, name: str) -> SimpleNamespace:
        """Say what it may have."""
        return SimpleNamespace(limits=SimpleNamespace(memory=256 << 20, cpu=0.5))

    def remove_tenant(self, name: str) -> None:
        """Remove it."""
        self.there.discard(name)

    def sandboxes(self, tenant: str) -> list[SimpleNamespace]:
        """Say which engine it has."""
        return [SimpleNamespace(engine="runc")]

    def verdict(self) -> Verdict:
        """Try the one case."""
        case = Named("a_case", Case(part="resources", title="A case", attack=self.attack), "")
        both: Any = self
        with Runner(both, both, [case], look=None, log=lambda tenant: []) as runner:
            return runner.try_case(case)


def test_who_made_the_neighbour_wait_once_is_tried_again_by_another_name() -> None:
    host = Host(1)
    verdict = host.verdict()
    assert verdict.outcome == "held"
    assert verdict.seen.startswith("tried; host unseen; tried twice, as a call of the neighbour took 1.")
    assert verdict.seconds > 1.3
    assert len(set(host.put)) == len(host.put) == 3
    assert not host.there


def test_who_makes_the_neighbour_wait_each_time_is_broken() -> None:
    host = Host(2)
    verdict = host.verdict()
    assert (verdict.outcome, host.waits) == ("broken", 0)
    assert verdict.seen.count("a call of the neighbour took 1.") == 2


def test_who_costs_the_neighbour_calls_is_broken_at_once() -> None:
    host = Host(2, lost=True)
    verdict = host.verdict()
    assert (verdict.outcome, host.waits) == ("broken", 1)
    assert "lost" in verdict.seen


def test_calls_that_are_never_answered_were_not_served() -> None:
    gone = threading.Event()
    with Neighbour(lambda: "" if gone.wait(20) else "late") as neighbour:
        began = time.monotonic()
        time.sleep(0.3)
        seen = neighbour.since(began)
        gone.set()
    assert seen.failed == seen.calls >= 10
    assert "no answer after" in harmed(seen)
    assert seen.slowest > 5


def test_failures_are_counted_with_the_first_reason() -> None:
    with Neighbour(lambda: "refused") as neighbour:
        began = time.monotonic()
        time.sleep(0.2)
        seen = neighbour.since(began)
    assert seen.failed == seen.calls > 0
    assert seen.why == "refused"

"""What a case's answers and the neighbour's calls mean."""

import threading
import time

import pytest

from sandpost.selftest.case import Answer, Broken, answered, typed
from sandpost.selftest.neighbour import RATE, Neighbour, Quiet
from sandpost.selftest.runner import harmed


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

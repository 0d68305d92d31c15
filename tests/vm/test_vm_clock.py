"""The clock of the machine jumps under a running platform: by a day ahead, then by two back."""

import time
from collections.abc import Iterator

import pytest

from support.platform import Platform, platform

COUNT = "let calls = 0; return function (cb) { cb(null, ++calls) }"
NEVER = "return function (cb) {}"
DAY = 86_400.0
DEADLINE = 8
"""Seconds."""


@pytest.fixture
def running() -> Iterator[Platform]:
    """A platform, and afterwards the clock as it would be."""
    began, steady = time.time(), time.monotonic()
    try:
        with platform(pool_size="1") as started:
            yield started
    finally:
        time.clock_settime(time.CLOCK_REALTIME, began + time.monotonic() - steady)


def test_a_clock_that_jumps_ends_no_sandbox_and_moves_no_deadline(running: Platform) -> None:
    assert running.call("acme", COUNT).json == 1
    # His alone: a first call takes as long as this emulated processor needs for a sandbox.
    assert running.command("tenant", "set", "acme", "--deadline", f"{DEADLINE}s", timeout=120).returncode == 0
    time.sleep(2)
    for calls, by in enumerate((DAY, -2 * DAY), start=2):
        time.clock_settime(time.CLOCK_REALTIME, time.time() + by)
        # Whatever looks at its sandboxes once a second has looked.
        time.sleep(3)
        assert running.call("acme", COUNT).json == calls
        began = time.monotonic()
        answer = running.call("acme", NEVER)
        assert (answer.status, answer.json["reason"]) == (504, "deadline")
        assert DEADLINE - 1 < time.monotonic() - began < 30
        status = running.command("status", timeout=120)
        assert status.returncode == 0, status.stdout
        # Keys and tenants that are made in the other time hold.
        assert running.command("tenant", "set", f"of-{calls}", "--memory", "96MiB", timeout=120).returncode == 0
        assert running.call(f"of-{calls}", COUNT).json == 1

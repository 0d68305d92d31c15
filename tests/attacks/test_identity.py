"""Whose sandbox answers, while parts are killed and addresses change hands as fast as they can.

Weaker: a crash between an assignment and its record, or a route that outlives what it led to, and one tenant's program
runs where another's has left its data.
Must: each call is answered in a sandbox that no other tenant has had, or by a typed error.
"""

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network

import pytest

from support.http import Answer
from support.lab import Lab, destinations, every_packet, lab, until
from support.platform import FEW_SLOTS, Platform, platform

pytestmark = pytest.mark.long

TENANTS = 24
THREADS = 6
KILLS = 12
PATIENCE = 50
"""Seconds within which addresses must have changed hands often enough."""
ENDING = 0.02
"""So many of the calls; whose sandboxes end five times in ten seconds is held back."""
MINE = "globalThis.owner ??= '%s'; return function (cb) { cb(null, globalThis.owner) }"
END = "return function (cb) { process.exit(0) }"


class Kept:
    """A connection to the listener that is used again: all its calls come to one worker."""

    def __init__(self, running: Platform, patience: float = 20) -> None:
        self._key = running.key
        self._line = http.client.HTTPConnection("127.0.0.1", running.port, timeout=patience)
        running.there(self._line.connect)

    def call(self, tenant: str, program: str) -> Answer:
        self.send(tenant, program)
        return self.answer()

    def send(self, tenant: str, program: str) -> None:
        self._line.request("POST", f"/{tenant}?key={self._key}", program)

    def answer(self) -> Answer:
        response = self._line.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())

    def close(self) -> None:
        self._line.close()


@pytest.fixture
def laboratory() -> Iterator[Lab]:
    """A lab, whose internet must not hear of any sandbox's address: they come and go while calls are made."""
    with lab() as made, made.internet.run(every_packet) as outside:
        yield made
        block = IPv4Network(FEW_SLOTS["network_block"])
        assert not [one for one in destinations(outside) if IPv4Address(one) in block]


def test_no_tenant_meets_anothers_sandbox_whatever_is_killed(laboratory: Lab) -> None:
    with platform(laboratory.host, workers="2", pool_size="4", **FEW_SLOTS) as running:
        over = threading.Event()
        served: list[str] = []
        wrong: list[str] = []

        def call(seed: int) -> None:
            choose = random.Random(seed)
            while not over.is_set():
                tenant = f"tenant-{choose.randrange(TENANTS)}"
                time.sleep(0.01)
                try:
                    # Some end their sandbox, so that there are assignments all the while.
                    answer = running.call(tenant, END if choose.random() < ENDING else MINE % tenant)
                    found = answer.json
                except (OSError, http.client.HTTPException):
                    # Its worker was killed.
                    continue
                if answer.status == 200:
                    (served if found == tenant else wrong).append(f"{tenant} met {found}")
                elif not found.get("reason"):
                    wrong.append(f"{answer.status} {answer.body!r}")

        threads = [threading.Thread(target=call, args=(seed,)) for seed in range(THREADS)]
        slots: set[tuple[str, int]] = set()

        def changed_hands() -> int:
            return len(slots) - len({slot for _, slot in slots})

        for thread in threads:
            thread.start()
        try:
            moments, last = random.Random(0), time.monotonic() + PATIENCE
            for kills, part in enumerate(itertools.cycle(["controller", "proxy", "controller", "egress"])):
                # On a slow machine it takes more of them until addresses have changed hands often enough.
                if kills >= KILLS and (changed_hands() > TENANTS or time.monotonic() > last):
                    break
                for _ in range(10):
                    slots |= {(record["sandbox_id"], record["slot"]) for record in running.records()}
                    time.sleep(0.1)
                time.sleep(moments.random() * 0.1)
                for pid in running.pids(part)[:1]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        finally:
            over.set()
            for thread in threads:
                thread.join(60)
        print(f"{len(served)} calls served in {len(slots)} sandboxes")
        assert wrong == []
        assert len(served) > 200
        assert changed_hands() > TENANTS, "hardly an address had a second owner"
        running.wait_ready()
        for number in range(TENANTS):
            tenant = f"tenant-{number}"
            assert running.call(tenant, MINE % tenant).json == tenant


def test_a_worker_that_stood_still_never_calls_the_next_owner_of_an_address(laboratory: Lab) -> None:
    with platform(laboratory.host, workers="2", pool_size="2", **FEW_SLOTS) as running, contextlib.ExitStack() as stack:
        kept = [Kept(running) for _ in range(8)]
        for line in kept:
            stack.callback(line.close)
            assert line.call("stale", MINE % "stale").json == "stale"
        [first] = [record for record in running.records() if record["tenant"] == "stale"]
        [still, moving] = running.pids("proxy")
        os.kill(still, signal.SIGSTOP)
        try:
            lines = _by_worker(kept)
            assert lines[True], "each of the connections came to the worker that stands still"
            assert lines[False], "none of the connections came to the worker that stands still"
            os.kill(first["pid"], signal.SIGKILL)
            # The other worker's calls, until the ring of addresses has come round and there is none left.
            dealt, refused = _deal_all(running, lines[True][0])
            assert first["slot"] not in dealt
            assert refused["reason"] == "no_room"
        finally:
            os.kill(still, signal.SIGCONT)
        # Their calls were sent to the worker when it knew the old route alone.
        told = [line.answer() for line in lines[False]]
        for answer in told:
            assert answer.json == "stale" if answer.status == 200 else answer.json["reason"], answer.body
        # All that was owed is settled.
        assert until(lambda: running.call("another", MINE % "another").status == 200, 20)
        assert running.pids("proxy") == [still, moving]


def _by_worker(kept: list[Kept]) -> dict[bool, list[Kept]]:
    """Sort connections by whether a call is answered; those of the others are under way."""
    found: dict[bool, list[Kept]] = {True: [], False: []}
    for line in kept:
        assert line._line.sock is not None
        line._line.sock.settimeout(1)
        try:
            assert line.call("stale", MINE % "stale").json == "stale"
            found[True].append(line)
        except TimeoutError:
            found[False].append(line)
    for line in kept:
        assert line._line.sock is not None
        line._line.sock.settimeout(40)
    return found


def _deal_all(running: Platform, line: Kept) -> tuple[set[int], dict[str, str]]:
    """Give sandboxes to tenants, each of which ends its own, until there is no room; return their slots and the error."""
    dealt: set[int] = set()
    for number in range(200):
        tenant = f"next-{number}"
        answer = line.call(tenant, MINE % tenant)
        if answer.status != 200:
            return dealt, json.loads(answer.body)
        assert answer.json == tenant
        dealt |= {record["slot"] for record in running.records() if record["tenant"] == tenant}
        assert line.call(tenant, END).json["reason"] == "exit"
    raise AssertionError("addresses are dealt again that a worker may still call")

"""Many large programs at once: they wait their turn, and the sandbox's memory is not spent on those that wait."""

import threading
from collections import Counter

import pytest

from support.platform import Platform

SIZE = 1 << 20


# A letter of two bytes makes the whole text so.
@pytest.mark.parametrize("letter", ["x", "\u6f22"])
def test_a_burst_of_large_programs_does_not_end_the_sandbox(running: Platform, letter: str) -> None:
    tenant = f"burst-{ord(letter):x}"
    assert running.call(tenant, "globalThis.alive = 1; return cb => cb()").status == 200
    for lap in range(4):
        seen: Counter[tuple[int, bytes]] = Counter()

        def call(lap: int, number: int, seen: Counter[tuple[int, bytes]]) -> None:
            program = f"return cb => cb(null, [{lap}, globalThis.alive]); // {number} {letter}"
            answer = running.call(tenant, program.encode().ljust(SIZE, b"x"))
            seen[answer.status, answer.body] += 1

        threads = [threading.Thread(target=call, args=(lap, number, seen)) for number in range(95)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == {(200, b"[%d,1]" % lap): 95}

"""Work that goes on after the answer: a loop that begins when the call is over.

Weaker: nobody watches a function that has answered; it burns the host, and whoever calls next hangs.
Must: answered, and the tenant's own next call finds the loop, which ends as `blocked`: it is told so, or is served by
the next sandbox if nothing of it had reached the loop.
"""

import time

from sandpost.selftest.case import Attacker, Case, answered, typed

PROGRAM = "return function (cb) { cb(null, 'answered'); setTimeout(() => { for (;;); }, 20) }"
HELLO = "return function (cb) { cb(null, 1) }"


def attack(me: Attacker) -> str:
    answered(me.call(PROGRAM), "answered")
    time.sleep(0.2)
    answer = me.call(HELLO)
    return "answered, then " + (answered(answer, 1) if answer.status == 200 else typed(answer, 500, "blocked"))


CASE = Case(
    part="resources",
    title="Loop after the answer",
    attack=attack,
    limits={"deadline": "10s", "blocked_after": "1s"},
    log="blocked:",
    quick=False,
)

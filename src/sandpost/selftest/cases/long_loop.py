"""A loop of ten seconds that then answers: slow, not hostile.

Weaker: whoever kills what is busy kills honest work, too.
Must: served.
"""

from sandpost.selftest.case import Attacker, Case, answered

PROGRAM = "return function (cb) { const end = Date.now() + 10000; while (Date.now() < end); cb(null, 'done') }"


def attack(me: Attacker) -> str:
    return answered(me.call(PROGRAM), "done")


CASE = Case(
    part="resources",
    title="A loop of ten seconds is served",
    attack=attack,
    limits={"deadline": "30s", "blocked_after": "15s"},
    quick=False,
)

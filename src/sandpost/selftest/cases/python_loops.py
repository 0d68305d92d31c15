"""Endless loops in Python: one that holds the loop of all calls, and one in a thread of its own.

Weaker: a thread cannot be broken off, so that it burns its core for good after its caller was told of the deadline.
Must: the one ends as `blocked`; the other's caller is told of the deadline, and then its sandbox ends as `blocked`.
"""

from sandpost.selftest.case import Attacker, Case, expect, typed
from sandpost.selftest.programs import PYTHON

ON_THE_LOOP = f"{PYTHON}async def main(context):\n    while True: pass"
IN_A_THREAD = f"{PYTHON}def main(context):\n    while True: pass"


def attack(me: Attacker) -> str:
    seen = [typed(me.call(ON_THE_LOOP), 500, "blocked"), typed(me.call(IN_A_THREAD), 504, "deadline")]
    me.told("blocked: a thread ran on")
    expect(me.call(f"{PYTHON}def main(context): return 1").body == b"1", "it was not served again")
    return ", ".join(seen)


CASE = Case(
    part="resources",
    title="Python: endless loops",
    attack=attack,
    limits={"deadline": "5s", "blocked_after": "1s"},
    log="blocked:",
    language="python",
    quick=False,
)

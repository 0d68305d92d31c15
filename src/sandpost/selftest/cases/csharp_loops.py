"""An endless loop in C#, on the thread of all calls, where no garbage is made and nothing can be broken off.

Weaker: a deadline that the runtime keeps, whose own thread it is that loops.
Must: 500 `blocked`; the next request is served.
"""

from sandpost.selftest.case import Attacker, Case, typed
from sandpost.selftest.programs import csharp

PROGRAM = csharp("for (;;) { }")


def attack(me: Attacker) -> str:
    return typed(me.call(PROGRAM), 500, "blocked")


CASE = Case(
    part="resources",
    title="C#: endless loop",
    attack=attack,
    limits={"blocked_after": "1s"},
    log="blocked:",
    language="csharp",
    quick=False,
)

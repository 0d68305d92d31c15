"""A callback that never comes.

Weaker: the caller waits for ever.
Must: 504 at the deadline; the sandbox lives.
"""

from sandpost.selftest.case import Attacker, Case, typed

PROGRAM = "return function (cb) {}"


def attack(me: Attacker) -> str:
    return typed(me.call(PROGRAM), 504, "deadline", "limits.deadline")


CASE = Case(part="exchange", title="Callback never", attack=attack, quick=False)

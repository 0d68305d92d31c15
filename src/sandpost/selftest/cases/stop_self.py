"""A process that stops itself: it neither answers nor ends, and uses no CPU.

Weaker: a watchdog that goes by CPU time sees an idle process.
Must: 504 at the deadline; then it is found silent and ends.
"""

from sandpost.selftest.case import Attacker, Case, typed

PROGRAM = "return function (cb) { process.kill(process.pid, 'SIGSTOP') }"


def attack(me: Attacker) -> str:
    return typed(me.call(PROGRAM), 504, "deadline", "limits.deadline")


CASE = Case(part="exchange", title="SIGSTOP to itself", attack=attack, quick=False)

"""`process.exit`.

Weaker: the function's host process ends, and with it the calls of others.
Must: 500 `exit`; the next request is served by another sandbox.
"""

from sandpost.selftest.case import Attacker, Case, typed

PROGRAM = "return function (cb) { process.exit(0) }"


def attack(me: Attacker) -> str:
    return typed(me.call(PROGRAM), 500, "exit")


CASE = Case(part="exchange", title="process.exit", attack=attack, log="exit:")

"""`process.abort`, which leaves a core file where it may.

Weaker: core files fill the disk, and hold the memory of whoever shared the process.
Must: 500 `crash`, no core file.
"""

from sandpost.selftest.case import Attacker, Case, typed

PROGRAM = "return function (cb) { process.abort() }"


def attack(me: Attacker) -> str:
    return typed(me.call(PROGRAM), 500, "crash")


CASE = Case(part="exchange", title="process.abort", attack=attack, log="crash:")

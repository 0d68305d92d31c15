"""A signal to every process that can be reached.

Weaker: without a namespace of pids it ends all of that user's.
Must: 500 `crash`; nobody else is reached.
"""

from sandpost.selftest.case import Attacker, Case, typed

PROGRAM = "return function (cb) { require('child_process').exec('kill -9 -1') }"


def attack(me: Attacker) -> str:
    return typed(me.call(PROGRAM), 500, "crash")


CASE = Case(part="exchange", title="kill -9 -1", attack=attack, log="crash:")

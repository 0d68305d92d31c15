"""A callback that is called twice.

Weaker: the second answer reaches the next caller on the connection.
Must: the first counts, and the next call gets its own.
"""

from sandpost.selftest.case import Attacker, Case, answered

PROGRAM = "return function (cb) { cb(null, 'first'); cb(null, 'second') }"


def attack(me: Attacker) -> str:
    return answered(me.call(PROGRAM), "first")


CASE = Case(part="exchange", title="Callback twice", attack=attack)

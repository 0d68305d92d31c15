"""An error whose every property throws.

Weaker: whoever renders the error throws, in the platform's own code.
Must: 500 as for any other.
"""

from sandpost.selftest.case import Attacker, Case, typed

PROGRAM = "return function (cb) { throw new Proxy({}, { get() { throw 1 }, getPrototypeOf() { throw 2 }, ownKeys() { throw 3 } }) }"


def attack(me: Attacker) -> str:
    return typed(me.call(PROGRAM), 500, "sync_exception")


CASE = Case(part="exchange", title="An error full of traps", attack=attack)

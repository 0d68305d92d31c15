"""An error in a promise that nobody waits for.

Weaker: Node ends the process, with everybody's calls.
Must: 500 to the call it arose in; the sandbox lives.
"""

from sandpost.selftest.case import Attacker, Case, typed

PROGRAM = "return function (cb) { Promise.reject(new Error('nobody')) }"


def attack(me: Attacker) -> str:
    return typed(me.call(PROGRAM), 500, "async_exception")


CASE = Case(part="exchange", title="A rejection nobody handles", attack=attack)

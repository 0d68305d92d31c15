"""A length that is longer than the body, and one that is shorter.

Weaker: the next answer's bytes fill the gap, or are read as one.
Must: 502 that says so, and the next call has its own answer.
"""

from sandpost.selftest.case import Attacker, Case, typed

PROGRAM = "return function (context, req, res) { res.setHeader('content-length', 50); res.end('short') }"


def attack(me: Attacker) -> str:
    return typed(me.call(PROGRAM), 502, "bad_gateway")


CASE = Case(part="exchange", title="A lying length", attack=attack)

"""A response split by a header that holds a line's end.

Weaker: what follows is the next caller's answer.
Must: 500; nothing of it reaches a client.
"""

from sandpost.selftest.case import Attacker, Case, typed

PROGRAM = "return function (context, req, res) { res.setHeader('a', 'b\\r\\n\\r\\nHTTP/1.1 200 OK'); res.end() }"


def attack(me: Attacker) -> str:
    return typed(me.call(PROGRAM), 500, "sync_exception")


CASE = Case(part="exchange", title="Response splitting", attack=attack)

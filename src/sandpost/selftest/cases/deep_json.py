"""A body of JSON that is 200,000 levels deep.

Weaker: a parser that calls itself meets the end of the stack.
Must: it is the program's own body; served.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = b"return function (context, cb) { cb(null, typeof context.body) }"


def attack(me: Attacker) -> str:
    code = me.call(PROGRAM).headers.get("x-sandpost-code", "")
    expect(code, "no x-sandpost-code came back")
    answer = me.call(b"[" * 200_000, query={"webtask_code": code}, headers={"content-type": "application/json"})
    expect(answer.status == 200, answer.body)
    return "served"


CASE = Case(part="resources", title="Deep JSON", attack=attack)

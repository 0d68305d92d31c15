"""Headers by which the platform speaks to itself and to clients, set by a program.

Weaker: a program steers the proxy, or says that the platform failed.
Must: none of them passes.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = "return function (context, req, res) { for (const name of ['x-sandpost-end', 'x-sandpost-replace', 'x-sandpost-error', 'x-wt-response-source', 'x-sandpost-source']) { try { res.setHeader(name, 'forged') } catch {} } res.end('ok') }"


def attack(me: Attacker) -> str:
    answer = me.call(PROGRAM)
    expect(answer.status == 200 and answer.body == b"ok" and "forged" not in str(answer.headers), answer.headers)
    return "none passes"


CASE = Case(part="exchange", title="Headers of the platform", attack=attack)

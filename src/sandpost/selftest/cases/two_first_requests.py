"""Many first requests in the same instant.

Weaker: each makes a sandbox, or two tenants are given the same one.
Must: all are served by one sandbox of this tenant.
"""

from sandpost.selftest.case import Attacker, Case, expect, typed

PROGRAM = "let calls = 0; return function (cb) { cb(null, ++calls) }"


def attack(me: Attacker) -> str:
    typed(me.call("return function (cb) { process.exit(0) }"), 500, "exit")
    waiting = [me.start(PROGRAM) for _ in range(16)]
    seen = sorted(wait(20).json for wait in waiting)
    expect(seen == list(range(1, 17)), seen)
    return "16 calls, one sandbox"


CASE = Case(part="identity", title="Many first requests at once", attack=attack)

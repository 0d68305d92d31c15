"""Output without end.

Weaker: logs fill the disk, or the collector falls behind with everybody's.
Must: served; what is beyond the rate is dropped, counted, and the log says so.
"""

import time
from contextlib import suppress

from sandpost.selftest.case import Attacker, Case, Untried, expect

PROGRAM = """
const line = 'x'.repeat(200);
const end = Date.now() + 1500;
while (Date.now() < end) { for (let n = 0; n < 50; n++) console.log(line); await new Promise((done) => setImmediate(done)) }
return 'done';
"""
_MOST = 1200
"""Records of two seconds' rate, of a second's at once, and half as many: each costs over 200 bytes."""


def attack(me: Attacker) -> str:
    expect(me.inside(PROGRAM) == "done", "it was not served")
    time.sleep(1)
    with suppress(Untried):
        kept = sum(one["msg"].startswith("xxx") for one in me.log())
        expect(0 < kept < _MOST, f"{kept} lines kept")
        return f"{kept} lines kept"
    return "served"


CASE = Case(
    part="resources", title="Output flood", attack=attack, limits={"output": "64KiB", "deadline": "10s"}, log="dropped"
)

"""Output without end.

Weaker: logs fill the disk, or the collector falls behind with everybody's.
Must: served; what is beyond the rate is dropped, counted, and the log says so.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const line = 'x'.repeat(200);
const end = Date.now() + 1500;
while (Date.now() < end) { for (let n = 0; n < 50; n++) console.log(line); await new Promise((done) => setImmediate(done)) }
return 'done';
"""


def attack(me: Attacker) -> str:
    expect(me.inside(PROGRAM) == "done", "it was not served")
    return "served"


CASE = Case(
    part="resources", title="Output flood", attack=attack, limits={"output": "64KiB", "deadline": "10s"}, log="dropped"
)

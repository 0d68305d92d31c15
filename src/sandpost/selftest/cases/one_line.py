"""One line without an end.

Weaker: whoever reads lines holds it whole.
Must: served; memory outside is bounded, the log has it in pieces.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
for (let n = 0; n < 64; n++) { process.stdout.write('y'.repeat(65536)); await new Promise((done) => setImmediate(done)) }
return 'done';
"""


def attack(me: Attacker) -> str:
    expect(me.inside(PROGRAM) == "done", "it was not served")
    return "served"


CASE = Case(part="resources", title="One line without end", attack=attack, limits={"deadline": "10s"}, log="yyyy")

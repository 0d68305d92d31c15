"""A log record of another tenant, of the platform, and of the past, printed by a program.

Weaker: whoever prints JSON writes the log.
Must: each is a record that is this sandbox's, as text or beside what is ours, and stands in no other tenant's log nor in the platform's.
"""

import secrets
import time

from sandpost.selftest.case import Attacker, Case, Untried, expect

PROGRAM = """
const record = { name: 'sandpost', hostname: 'another', pid: 1, level: 60, time: '2001-01-01T00:00:00.000Z', msg: 'forged-by-a-program %s', container: '%s', sandbox_id: 'ffffffffffff', v: 0 };
console.log(JSON.stringify(record));
process.stderr.write('\\u0000\\u001b[2Jforged-by-a-program\\r\\n' + JSON.stringify({ ...record, sandbox: false }) + '\\n');
await new Promise((done) => setTimeout(done, 300));
return 'done';
"""


def attack(me: Attacker) -> str:
    mark = secrets.token_hex(8)
    expect(me.inside(PROGRAM % (mark, me.neighbour)) == "done", "it was not served")
    time.sleep(0.5)
    records = [one for one in me.log() if "forged-by-a-program" in one["msg"]]
    wrong = [one for one in records if one["container"] != me.tenant or one.get("sandbox") is not True]
    expect(records and not wrong, f"{len(records)} records, wrong: {wrong}")
    own = me.sandbox()
    expect(all(one["sandbox_id"] == own for one in records), f"of other sandboxes than {own}: {records}")
    try:
        others = set(me.host().mentions(mark)) - {me.tenant}
    except Untried:
        return f"{len(records)} records, all his own (other logs unseen)"
    expect(not others, f"it stands in {sorted(others)} too")
    return f"{len(records)} records, all his own"


CASE = Case(part="resources", title="Forged log records", attack=attack, log="forged-by-a-program")

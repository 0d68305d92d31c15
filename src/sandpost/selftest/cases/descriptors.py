"""Open files without end.

Weaker: the host's table of open files is everybody's.
Must: `EMFILE` inside, the sandbox serves on.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
const open = [];
try { for (;;) open.push(fs.openSync('/dev/null')) }
catch (error) { return [error.code, open.length] }
finally { for (const fd of open) fs.closeSync(fd) }
"""


def attack(me: Attacker) -> str:
    code, count = me.inside(PROGRAM)
    expect(code == "EMFILE" and count <= 256, f"{code} after {count} files")
    return f"EMFILE after {count}"


CASE = Case(part="resources", title="Descriptors without end", attack=attack, limits={"files": 256})

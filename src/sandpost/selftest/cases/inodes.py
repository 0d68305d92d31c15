"""Empty files without end.

Weaker: bytes are limited, entries are not, and the host's memory for inodes goes.
Must: `ENOSPC` inside, and the log says that the limit was met.
"""

from sandpost.selftest.case import Attacker, Case, expect

# A turn of the loop every hundred files: without one it is a blocked program where files are slow, as on gVisor.
PROGRAM = """
const fs = require('fs');
const turn = async (count) => { if (count % 100 === 0) await new Promise(setImmediate) };
let count = 0;
try { for (;;) { fs.writeFileSync(`/tmp/${count}`, ''); await turn(++count) } }
catch (error) { await new Promise((done) => setTimeout(done, 1500)); return [error.code, count] }
finally { for (let n = 0; n < count; n++) { fs.rmSync(`/tmp/${n}`); await turn(n) } }
"""


def attack(me: Attacker) -> str:
    code, count = me.inside(PROGRAM)
    expect(code == "ENOSPC" and count <= 1000, f"{code} after {count} files")
    return "ENOSPC"


CASE = Case(
    part="resources",
    title="Files without end",
    attack=attack,
    limits={"tmp_inodes": 1000},
    log="limits.tmp_inodes",
)

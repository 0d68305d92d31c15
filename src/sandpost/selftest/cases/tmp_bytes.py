"""`/tmp` filled to the last byte.

Weaker: the folder lies on the host's disk, or in memory that nobody counts.
Must: `ENOSPC` inside, the sandbox lives, and the log says that the limit was met.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
let size = 0;
try { for (;;) { fs.appendFileSync('/tmp/all', Buffer.alloc(1 << 20, 1)); size += 1 << 20 } }
catch (error) { await new Promise((done) => setTimeout(done, 1500)); return [error.code, size] }
finally { fs.rmSync('/tmp/all') }
"""


def attack(me: Attacker) -> str:
    code, size = me.inside(PROGRAM)
    expect(code == "ENOSPC" and size <= 16 << 20, f"{code} after {size} bytes")
    return "ENOSPC"


CASE = Case(part="resources", title="/tmp full", attack=attack, limits={"tmp": "16MiB"}, log="disk:")

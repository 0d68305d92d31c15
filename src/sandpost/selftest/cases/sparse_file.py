"""A file of a terabyte that takes no space until it is read by somebody else.

Weaker: a backup or a quota that goes by lengths believes it.
Must: refused, or it costs nothing: `/tmp` keeps its size.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
let code = 'ok';
try { fs.writeFileSync('/tmp/sparse', ''); fs.truncateSync('/tmp/sparse', 1e12) } catch (error) { code = error.code }
const { blocks, bfree, bsize } = fs.statfsSync('/tmp');
fs.rmSync('/tmp/sparse', { force: true });
return [code, (blocks - bfree) * bsize];
"""


def attack(me: Attacker) -> str:
    code, used = me.inside(PROGRAM)
    expect(code in {"ok", "EFBIG", "ENOSPC"} and used < 1 << 20, f"{code}, {used} bytes in use")
    return f"{code}, nothing in use"


CASE = Case(part="resources", title="Sparse file of a terabyte", attack=attack)

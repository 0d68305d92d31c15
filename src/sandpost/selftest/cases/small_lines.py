"""Lines of one character each, a hundred thousand at a time.

Weaker: a bound of bytes counts two for a line whose record has hundreds, and each costs a turn of whoever reads lines.
Must: served; a record costs what it costs, what is beyond the rate is dropped, counted, and the log says so.
"""

import time

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
const lines = Buffer.from('z\\n'.repeat(32768));
const end = Date.now() + 1000;
while (Date.now() < end) {
  // A full pipe says EAGAIN.
  for (const fd of [1, 2]) try { fs.writeSync(fd, lines) } catch {}
  await new Promise((done) => setImmediate(done));
}
return 'done';
"""
_MOST = 2048
"""Records of a second's rate, of as much again at once, and some: each costs over 32 bytes."""


def attack(me: Attacker) -> str:
    expect(me.inside(PROGRAM) == "done", "it was not served")
    time.sleep(1.5)
    kept = sum(one["msg"] == "z" for one in me.log())
    expect(0 < kept < _MOST, f"{kept} records of one character")
    return f"{kept} lines kept"


CASE = Case(
    part="resources",
    title="Many small lines",
    attack=attack,
    limits={"output": "64KiB", "deadline": "10s"},
    log="dropped",
    quick=False,
)

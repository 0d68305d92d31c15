"""Children that have ended and that nobody waits for.

Weaker: they fill the table of processes though they do nothing.
Must: they count as processes; the sandbox serves on, and when it ends they are gone.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const { spawn } = require('child_process');
spawn('/bin/sh', ['-c', 'n=0; while [ $n -lt 200 ]; do /bin/true & n=$((n+1)); done; exec sleep 30'],
  { stdio: 'ignore', detached: true }).unref();
await new Promise((done) => setTimeout(done, 500));
return require('fs').readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name)).length;
"""


def attack(me: Attacker) -> str:
    count = me.inside(PROGRAM)
    expect(count <= 64, f"{count} processes")
    return f"{count} processes"


CASE = Case(part="resources", title="Zombies", attack=attack)

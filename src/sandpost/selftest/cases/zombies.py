"""Children that have ended and that nobody waits for.

Weaker: they fill the table of processes though they do nothing.
Must: they count as processes, and the log says so when that limit is met; the sandbox serves on, and when it ends they
are gone.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
const { spawn } = require('child_process');
// Who cannot fork ends, and its children are waited for by the first process.
let met = false;
for (let n = 0; n < 4; n++)
  spawn('/bin/sh', ['-c', 'n=0; while [ $n -lt 30 ]; do /bin/true & n=$((n+1)); done; exec sleep 30'],
    { stdio: 'ignore', detached: true }).on('error', () => { met = true }).on('exit', () => { met = true }).unref();
const pause = (time) => new Promise((done) => setTimeout(done, time));
for (const end = Date.now() + 6000; !met && Date.now() < end;) await pause(50);
await pause(500);
const states = fs.readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name)).map((pid) => {
  try { return fs.readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ').at(-1)[0] } catch { return '' }
});
return [states.length, states.filter((state) => state === 'Z').length];
"""


def attack(me: Attacker) -> str:
    count, dead = me.inside(PROGRAM)
    expect(count <= 64, f"{count} processes")
    expect(dead or me.engine == "runsc", "none of them was left unwaited for")
    return f"{dead} of {count} processes"


CASE = Case(
    part="resources", title="Zombies", attack=attack, limits={"deadline": "10s"}, logged_on={"runc"}, log="pids:"
)

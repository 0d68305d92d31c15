"""Children that have ended and that nobody waits for.

Weaker: they fill the table of processes though they do nothing.
Must: they count as processes, and the log says so when that limit is met; the sandbox serves on, and when it ends they
are gone.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
const { spawn } = require('child_process');
const pause = (time) => new Promise((done) => setTimeout(done, time));
// A shell with few jobs forks them all before it looks after any, and sleep, which it becomes, waits for none. Shells
// are added until one is refused a fork: who cannot fork ends, and its children are waited for by the first process.
const jobs = '/bin/true & '.repeat(6);
let met = false;
for (const end = Date.now() + 6000; !met && Date.now() < end; await pause(20))
  spawn('/bin/sh', ['-c', `${jobs} exec sleep 30`], { stdio: 'ignore', detached: true })
    .on('error', () => { met = true }).on('exit', (code) => { met ||= code !== 0 }).unref();
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

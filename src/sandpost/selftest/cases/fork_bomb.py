"""Processes that make processes.

Weaker: the host's table of processes fills, and nobody can log in to end it.
Must: `EAGAIN` inside at `limits.pids`, served; the log says that the limit was met.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const { spawn } = require('child_process');
const children = [];
let code = 'none';
for (let n = 0; n < 300 && code === 'none'; n++) {
  const child = spawn('/bin/sleep', ['30'], { stdio: 'ignore' });
  child.on('error', (error) => { code = error.code });
  children.push(child);
  await new Promise((done) => setImmediate(done));
}
await new Promise((done) => setTimeout(done, 1500));
for (const child of children) child.kill('SIGKILL');
return [code, children.length];
"""


def attack(me: Attacker) -> str:
    code, count = me.inside(PROGRAM)
    expect(code == "EAGAIN" and count <= 64, f"{code} after {count} children")
    return f"EAGAIN after {count} children"


CASE = Case(
    part="resources", title="Fork bomb", attack=attack, limits={"deadline": "10s"}, logged_on={"runc"}, log="pids:"
)

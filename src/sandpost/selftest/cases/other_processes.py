"""Processes of others, by `/proc` and by signals.

Weaker: a shared namespace of pids shows them, with their command lines and environments.
Must: only the sandbox's own; a signal to every pid reaches nobody else.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
const pids = fs.readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name));
const lines = pids.map((pid) => { try { return fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\\0', ' ') } catch { return '' } });
let signalled = 0;
for (let pid = 2; pid < 5000; pid++) if (!pids.includes(String(pid))) { try { process.kill(pid, 0); signalled++ } catch {} }
return { count: pids.length, foreign: lines.filter((line) => line && !/tini|node/.test(line)), signalled };
"""


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    # Threads answer to a signal by their own number.
    expect(found["count"] <= 3 and not found["foreign"] and found["signalled"] <= 16, found)
    return f"{found['count']} processes, all its own"


CASE = Case(part="escape", title="Processes of others", attack=attack)

"""Capabilities, set-user-id programs, and whatever else makes root of a user.

Weaker: root in the container is root on the host after the next hole.
Must: no capability in any set, `no_new_privs`, no user 0, and no program that would give one.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
const { execFileSync } = require('child_process');
const status = Object.fromEntries(fs.readFileSync('/proc/self/status', 'utf8').split('\\n').map((line) => line.split(':\\t')));
const suid = [];
const walk = (folder) => {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    const path = folder + '/' + entry.name;
    if (entry.isDirectory()) walk(path);
    else if (entry.isFile() && fs.lstatSync(path).mode & 0o6000) suid.push(path);
  }
};
for (const folder of ['/usr/bin', '/usr/sbin', '/usr/lib', '/usr/local', '/opt']) { try { walk(folder) } catch {} }
let root = '';
try { process.setuid(0); root = 'setuid' } catch {}
for (const path of suid) { try { if (execFileSync(path, ['--version'], { timeout: 500 }) && process.geteuid() === 0) root = path } catch {} }
return { caps: ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'].map((name) => status[name]), nnp: status.NoNewPrivs, uid: status.Uid, root };
"""
_NONE = "0000000000000000"


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    expect(set(found["caps"]) == {_NONE} and found["nnp"] == "1" and not found["root"], found)
    expect("0" not in found["uid"].split(), found)
    return "none"


CASE = Case(part="escape", title="Capabilities and set-user-id programs", attack=attack)

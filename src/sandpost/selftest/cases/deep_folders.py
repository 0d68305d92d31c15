"""Folders inside folders, deeper than a path can say, with names that programs stumble over.

Weaker: whoever removes a tenant's files by path, or recursively, never ends.
Must: nothing walks them; with the sandbox they are gone.
"""

from sandpost.selftest.case import Attacker, Case, expect

# A turn of the loop every hundred folders: without one it is a blocked program where files are slow.
PROGRAM = r"""
const fs = require('fs');
const names = ['\n', '-rf', '..\\..', '\u202e', ' ', '%00', '$(id)', 'a'.repeat(255)];
let depth = 0;
process.chdir('/tmp');
try {
  for (; depth < 1500; depth++) {
    const name = names[depth % names.length];
    fs.mkdirSync(name);
    process.chdir(name);
    if (depth % 100 === 0) await new Promise(setImmediate);
  }
}
catch (error) { return [error.code, depth] }
return ['ok', depth];
"""


def attack(me: Attacker) -> str:
    code, depth = me.inside(PROGRAM)
    expect(depth > 100, f"{code} at depth {depth}")
    return f"{depth} deep"


CASE = Case(part="resources", title="Deep folders, odd names", attack=attack)

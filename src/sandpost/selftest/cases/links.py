"""Symbolic and hard links where the host would follow them.

Weaker: the host opens `/tmp` or a log by its path in the container, and follows what it finds.
Must: the places that the host uses cannot be replaced, and nothing of the root can be linked.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
const tries = {
  replace: () => { fs.renameSync('/tmp', '/tmp2'); fs.symlinkSync('/etc', '/tmp') },
  remove: () => fs.rmdirSync('/tmp'),
  link: () => fs.linkSync('/usr/local/bin/node', '/tmp/node'),
  proc: () => fs.symlinkSync('/etc', '/proc/self/cwd2'),
  dev: () => { fs.unlinkSync('/dev/null'); fs.symlinkSync('/etc/shadow', '/dev/null') },
};
return Object.entries(tries).filter(([, action]) => { try { action(); return true } catch { return false } }).map(([name]) => name);
"""


def attack(me: Attacker) -> str:
    done = me.inside(PROGRAM)
    expect(not done, f"done: {done}")
    return "5 ways refused"


CASE = Case(part="escape", title="Links where the host goes", attack=attack)

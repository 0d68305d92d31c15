"""Processes that leave their session and outlive the one that started them.

Weaker: killing a process group leaves them behind, with the user id of the next tenant.
Must: when the sandbox ends, all of it ends.
"""

from sandpost.selftest.case import Attacker, Case, typed

PROGRAM = """return function (cb) {
  const { execSync } = require('child_process');
  execSync(`(setsid sleep 1000 &) ; (setsid sh -c "trap '' HUP TERM INT; sleep 1000" &) ; true`, { stdio: 'ignore' });
  process.exit(0);
}"""


def attack(me: Attacker) -> str:
    return typed(me.call(PROGRAM), 500, "exit")


CASE = Case(part="resources", title="Orphans", attack=attack, log="exit:")

"""Environment, arguments, host name, mounts: do they tell of the platform, of the host, or of others?

Weaker: secrets in the environment, the tenant's or the platform's paths in `/proc/self/mountinfo`.
Must: constants alone.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
return {
  env: Object.keys(process.env).sort(), argv: process.argv, host: require('os').hostname(),
  first: fs.readFileSync('/proc/1/environ', 'latin1') + fs.readFileSync('/proc/1/cmdline', 'latin1'),
  mounts: fs.readFileSync('/proc/self/mountinfo', 'utf8'),
};
"""
_KNOWN = {"HOME", "LANG", "MALLOC_ARENA_MAX", "NODE_ENV", "PATH", "SANDPOST_PROGRAMS", "SANDPOST_READY"}


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    expect(set(found["env"]) <= _KNOWN and found["host"] == "sandbox", f"{found['env']} {found['host']}")
    told = [word for word in (me.tenant, me.neighbour, me.sandbox()) if word and word in f"{found}"]
    expect(not told, f"it shows {told}")
    return "constants alone"


CASE = Case(part="escape", title="What is told inside", attack=attack)

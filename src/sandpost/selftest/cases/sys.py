"""`/sys`: devices, drivers, control groups, firmware.

Weaker: it tells of the host, and parts of it can be written.
Must: there is none.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = "try { return require('fs').readdirSync('/sys') } catch (error) { return [error.code] }"


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    expect(found in ([], ["ENOENT"]), found)
    return "none"


CASE = Case(part="escape", title="/sys", attack=attack)

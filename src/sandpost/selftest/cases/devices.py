"""Device nodes: what is there, and what could be made.

Weaker: a disk, memory or a terminal of the host.
Must: null, zero, full, random, urandom, and no place where another would work.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = "return require('fs').readdirSync('/dev').sort()"
_TERMINALS = {"pts", "ptmx", "tty"}
"""gVisor's kernel has terminals of its own, one sandbox's alone."""
_ALLOWED = {"fd", "full", "null", "random", "stderr", "stdin", "stdout", "urandom", "zero"}
"""Three of them are links into `/proc/self/fd`."""


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    terminals = set(found) & _TERMINALS if me.engine == "runsc" else set()
    expect(set(found) <= _ALLOWED | terminals, found)
    return "five"


CASE = Case(part="escape", title="Device nodes", attack=attack)

"""Unix sockets without a path, which no file's mode protects.

Weaker: in the host's network namespace those of every daemon can be reached (containerd, CVE-2020-15257).
Must: none is there but its own.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = "return require('fs').readFileSync('/proc/net/unix', 'utf8').split('\\n').slice(1).map((line) => line.split(/ +/)[7]).filter(Boolean)"


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    expect(not found, found)
    return "none"


CASE = Case(part="escape", title="Abstract sockets", attack=attack)

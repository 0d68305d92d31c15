"""Control groups: raise the own limits, read others', run a program on the host by `release_agent`.

Weaker: a mounted hierarchy, writable for root in the container (CVE-2022-0492).
Must: none is mounted, and the path that `/proc` shows tells nothing.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
const mounts = fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\\n').filter((line) => / - cgroup2? /.test(line));
const shown = fs.readFileSync('/proc/self/cgroup', 'utf8').trim().split('\\n').map((line) => line.split(':').slice(2).join(':'));
return { mounts, shown: [...new Set(shown)] };
"""


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    expect(not found["mounts"] and found["shown"] == ["/"], found)
    return "none mounted, `/` shown"


CASE = Case(part="escape", title="Control groups", attack=attack)

"""Files of the root read again and again, so that the page cache fills.

Weaker: cache that is charged to the tenant ends it; cache that is charged to nobody pushes out everybody else's.
Must: served; the kernel takes its cache back.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
const file = fs.openSync('/usr/local/bin/node');
const piece = Buffer.alloc(1 << 20);
for (let n = 0; n < 4; n++) { let at = 0, got; while ((got = fs.readSync(file, piece, 0, piece.length, at)) > 0) at += got }
return 'read';
"""


def attack(me: Attacker) -> str:
    expect(me.inside(PROGRAM) == "read", "it was not served")
    return "served"


CASE = Case(part="resources", title="Page cache", attack=attack, limits={"deadline": "10s", "blocked_after": "8s"})

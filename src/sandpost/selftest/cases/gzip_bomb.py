"""A body of a megabyte that becomes a gigabyte when it is decompressed.

Weaker: a proxy or a body parser that decompresses before it looks at the limit.
Must: nothing decompresses it: a program that is no JavaScript.
"""

import gzip

from sandpost.selftest.case import Attacker, Case, expect


def attack(me: Attacker) -> str:
    bomb = gzip.compress(bytes(256 << 20), 9)
    answer = me.call(bomb, headers={"content-encoding": "gzip"})
    expect(400 <= answer.status < 500 and answer.reason, f"{answer.status} {answer.reason}")
    return f"{answer.status} {answer.reason}"


CASE = Case(part="resources", title="Compressed bomb", attack=attack)

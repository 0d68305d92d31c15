"""A head without an end.

Weaker: it is kept until memory is full.
Must: refused at the bound, the connection closed.
"""

from sandpost.selftest.case import Attacker, Case, expect


def attack(me: Attacker) -> str:
    head = b"POST {target} HTTP/1.1\r\nHost: x\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"a" * 900) for n in range(1000))
    seen = me.send(head)
    expect(seen.startswith(b"HTTP/1.1 431 ") and b"head_too_large" in seen, seen[:300])
    return "431 head_too_large"


CASE = Case(part="resources", title="Head without end", attack=attack)

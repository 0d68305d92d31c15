"""Clients that go away in the middle, in every state.

Weaker: what waits for them waits for ever, and counts as a call.
Must: nothing is held; as many again are served.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = b"return function (cb) { setTimeout(() => cb(null, 1), 200) }"


def attack(me: Attacker) -> str:
    for cut in range(40):
        wire = me.connect()
        head = f"POST {wire.target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PROGRAM)}\r\n\r\n".encode() + PROGRAM
        wire.write(head[: len(head) * (cut + 1) // 40])
        wire.close()
    expect(me.call(PROGRAM).status == 200, "the next call is not served")
    return "40 clients gone"


CASE = Case(part="exchange", title="Clients that go away", attack=attack)

"""A length that is longer than the body, and one that is shorter.

Weaker: the next answer's bytes fill the gap, or what is left over is the next caller's answer.
Must: 502 that says so, or as much as was announced where that had gone out; the next calls have their own answers.
"""

from sandpost.selftest.case import Attacker, Case, answered, expect, typed

LONGER = "return function (context, req, res) { res.setHeader('content-length', 50); res.end('short') }"
SHORTER = """return function (context, req, res) {
  req.socket.write('HTTP/1.1 200 OK\\r\\nx-sandpost-wire: 1\\r\\ncontent-length: 5\\r\\n\\r\\nshort and forged');
}"""
BROKEN = """return function (context, req, res) {
  req.socket.end('HTTP/1.1 200 OK\\r\\nx-sandpost-wire: 1\\r\\ncontent-length: 50\\r\\n\\r\\nshort');
}"""
OWN = "return function (cb) { cb(null, 'own') }"

_POST = b"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"


def attack(me: Attacker) -> str:
    seen = typed(me.call(LONGER), 502, "bad_gateway")
    # Past the runtime, with another request behind it whose answer would fill the gap.
    both = me.send(b"".join(_POST % (len(one), one.encode()) for one in (BROKEN, OWN)))
    expect(both.count(b"HTTP/1.1 ") == 1 and b"own" not in both, both[:300])
    for _ in range(3):
        answer = me.call(SHORTER)
        # Bytes that come later than the answer's end are seen when it has gone out.
        if answer.status == 200:
            expect(answer.body == b"short", answer.body)
        else:
            typed(answer, 502, "bad_gateway")
        for _ in range(10):
            answered(me.call(OWN), "own")
    return f"{seen} for the longer, and each call after the shorter has its own answer"


CASE = Case(part="exchange", title="A lying length", attack=attack)

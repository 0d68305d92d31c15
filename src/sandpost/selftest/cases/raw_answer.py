"""Answers of the program's own making, written past the runtime at once: one, and others behind it.

Weaker: a proxy that reuses the connection gives the next one to the next caller.
Must: 502 that says so; each caller after it has his own.
"""

from sandpost.selftest.case import Attacker, Case, answered, typed

PROGRAM = "return function (context, req, res) { const one = 'HTTP/1.1 200 OK\\r\\ncontent-length: 6\\r\\nx-sandpost-wire: 1\\r\\n\\r\\nforged'; req.socket.write(one + one + one) }"


def attack(me: Attacker) -> str:
    seen = typed(me.call(PROGRAM), 502, "bad_gateway")
    for _ in range(20):
        answered(me.call("return function (cb) { cb(null, 'own') }"), "own")
    return f"{seen}, and each call after it has its own answer"


CASE = Case(part="exchange", title="Answers behind answers", attack=attack)

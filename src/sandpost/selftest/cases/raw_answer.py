"""An answer of the program's own making, written past the runtime, with a second one behind it.

Weaker: a proxy that reuses the connection gives the second one to the next caller.
Must: 502; the next caller has his own.
"""

from sandpost.selftest.case import Attacker, Case, answered

PROGRAM = "return function (context, req, res) { const one = 'HTTP/1.1 200 OK\\r\\ncontent-length: 6\\r\\nx-sandpost-wire: 1\\r\\n\\r\\nforged'; req.socket.write(one + one + one) }"


def attack(me: Attacker) -> str:
    answer = me.call(PROGRAM)
    for _ in range(20):
        answered(me.call("return function (cb) { cb(null, 'own') }"), "own")
    return f"{answer.status}, and each call after it has its own answer"


CASE = Case(part="exchange", title="Answers behind answers", attack=attack)

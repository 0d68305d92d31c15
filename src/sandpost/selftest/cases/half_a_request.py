"""Clients that go away in the middle: of their request, while the program runs, and of the answer.

Weaker: what waits for them waits for ever, and counts as a call.
Must: nothing is held: soon as many calls as `limits.calls` allows are served at once.
"""

import time

from sandpost.selftest.case import Attacker, Broken, Case, Wire, answered, expect

PROGRAM = b"return function (cb) { setTimeout(() => cb(null, 1), 200) }"
STREAMS = b"return function (context, req, res) { res.write('x'); setInterval(() => res.write('x'), 50) }"
NEVER = b"return function (cb) {}"
_CALLS = 8
_PATIENCE = 5.0


def attack(me: Attacker) -> str:
    for cut in range(40):
        wire = me.connect()
        head = _head(wire, PROGRAM)
        wire.write(head[: len(head) * (cut + 1) // 40])
        wire.close()
    _until_free(me)
    for program in (NEVER, STREAMS):
        wires = [me.connect() for _ in range(_CALLS)]
        for wire in wires:
            wire.write(_head(wire, program))
        for wire in wires if program is STREAMS else ():
            first = wire.read(4096)
            expect(first.startswith(b"HTTP/1.1 200 "), f"an answer does not begin: {first[:300]!r}")
        time.sleep(0.2)
        for wire in wires:
            wire.close()
        _until_free(me)
    return f"{40 + 2 * _CALLS} clients gone, then {_CALLS} calls at once"


def _head(wire: Wire, program: bytes) -> bytes:
    return f"POST {wire.target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(program)}\r\n\r\n".encode() + program


def _until_free(me: Attacker) -> None:
    began = time.monotonic()
    while True:
        found = [wait(20) for wait in [me.start(PROGRAM) for _ in range(_CALLS)]]
        try:
            for answer in found:
                answered(answer, 1)
        except Broken:
            if time.monotonic() - began > _PATIENCE:
                raise
            time.sleep(0.2)
        else:
            return


CASE = Case(
    part="exchange",
    title="Clients that go away",
    attack=attack,
    # Far, so that it frees nothing.
    limits={"calls": _CALLS, "deadline": "60s", "blocked_after": "15s"},
    quick=False,
)

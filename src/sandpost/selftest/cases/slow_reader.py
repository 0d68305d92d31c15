"""Answers of many megabytes that nobody reads.

Weaker: whoever streams holds what the client does not take.
Must: the program is held back, not the proxy's memory; when the client goes, all is over.
"""

import time

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = b"return function (context, req, res) { const piece = Buffer.alloc(1 << 20); const more = () => { while (res.write(piece)); res.once('drain', more) }; more() }"


def attack(me: Attacker) -> str:
    wires = [me.connect() for _ in range(8)]
    try:
        for wire in wires:
            head = f"POST {wire.target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PROGRAM)}\r\n\r\n"
            wire.write(head.encode() + PROGRAM)
        time.sleep(1)
        first = [wire.read(1024) for wire in wires]
    finally:
        for wire in wires:
            wire.close()
    expect(all(one.startswith(b"HTTP/1.1 200 ") for one in first), first[0][:200])
    return "8 answers held"


CASE = Case(part="resources", title="Slow readers", attack=attack)

"""Heads that come a byte a second, on many connections.

Weaker: each holds a thread or a place for as long as it likes.
Must: cut when its time is over, each.
"""

import time

from sandpost.selftest.case import Attacker, Case, Wire, expect

_PATIENCE = 75
"""Longer than `http.head_timeout` may sensibly be."""


def attack(me: Attacker) -> str:
    wires = [me.connect() for _ in range(20)]
    began = time.monotonic()
    alive = list(wires)
    try:
        for wire in wires:
            wire.write(b"POST /")
        while alive and time.monotonic() - began < _PATIENCE:
            time.sleep(0.5)
            alive = [wire for wire in alive if _stays(wire)]
    finally:
        for wire in wires:
            wire.close()
    expect(not alive, f"{len(alive)} of 20 were still open after {_PATIENCE} s")
    return f"all cut within {time.monotonic() - began:.0f} s"


def _stays(wire: Wire) -> bool:
    try:
        wire.write(b"a")
        return bool(wire.read(4096, 0.001)) and False
    except TimeoutError:
        return True
    except OSError:
        return False


CASE = Case(part="resources", title="Slow heads", attack=attack, quick=False)

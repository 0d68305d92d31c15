"""Answers of many megabytes that nobody reads.

Weaker: whoever streams holds what the client does not take.
Must: the programs come to a halt long before their end, so that the proxy's memory does not grow with what they have to
say; when the clients go, all is over.
"""

import time

from sandpost.selftest.case import Attacker, Case, expect

_MOST = 512
"""MiB that the programs together would say."""
_READERS = 4
PROGRAM = (
    b"""return function (context, req, res) {
  const piece = Buffer.alloc(1 << 18);
  const more = () => {
    globalThis.said ??= 0;
    for (;;) {
      if (globalThis.said >= %d << 20) return res.end();
      globalThis.said += piece.length;
      if (!res.write(piece)) return void res.once('drain', more);
    }
  };
  more();
}"""
    % _MOST
)
_PATIENCE = 15.0


def attack(me: Attacker) -> str:
    wires = [me.connect() for _ in range(_READERS)]
    try:
        for wire in wires:
            head = f"POST {wire.target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(PROGRAM)}\r\n\r\n"
            wire.write(head.encode() + PROGRAM)
        said, before, began = _said(me), -1, time.monotonic()
        while said != before and time.monotonic() - began < _PATIENCE:
            time.sleep(0.5)
            before, said = said, _said(me)
        first = [wire.read(1024) for wire in wires]
    finally:
        for wire in wires:
            wire.close()
    expect(0 < said == before < _MOST << 20, f"{said >> 20} of {_MOST} MiB were taken from the programs")
    expect(all(one.startswith(b"HTTP/1.1 200 ") for one in first), first[0][:200])
    return f"{_READERS} answers held at {said >> 20} MiB"


def _said(me: Attacker) -> int:
    return int(me.inside("return globalThis.said ?? 0"))


CASE = Case(part="resources", title="Slow readers", attack=attack, limits={"deadline": "30s"})

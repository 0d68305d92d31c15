"""A program without an end, in chunks.

Weaker: it is kept until memory is full.
Must: 413 at `limits.code`, the connection closed.
"""

from sandpost.selftest.case import Attacker, Case, expect


def attack(me: Attacker) -> str:
    wire = me.connect()
    seen = b""
    try:
        wire.write(f"POST {wire.target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        try:
            for _ in range(64):
                wire.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
        except OSError:
            pass
        seen = wire.read(65536)
    finally:
        wire.close()
    expect(seen.startswith(b"HTTP/1.1 413 ") and b"limits.code" in seen, seen[:300])
    return "413 of limits.code"


CASE = Case(part="resources", title="Program without end", attack=attack)

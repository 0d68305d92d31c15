"""Bodies without an end, in chunks: one that the program reads, one that it never reads.

Weaker: what the program does not take is held, and what it takes has no bound.
Must: 413 at `limits.body`; where nobody reads, the sender is held back, and 504 comes at the deadline.
"""

from contextlib import suppress

from sandpost.selftest.case import Attacker, Case, expect

READS = "return function (context, req, res) { if (context.data.first) return res.end(); req.resume(); req.on('end', () => res.end('whole')) }"
IGNORES = "return function (context, req, res) { if (context.data.first) res.end() }"
_PIECE = b"10000\r\n" + b" " * 65536 + b"\r\n"
_MOST = 1 << 30
"""Bytes after which it is given up: far more than the kernel's sockets hold."""


def attack(me: Attacker) -> str:
    seen = _send(me, READS)
    expect(b"HTTP/1.1 413 " in seen and b"limits.body" in seen, seen[:300])
    unread = _send(me, IGNORES)
    # Not all of it is taken, so that the limit may not be met.
    expect(b"HTTP/1.1 413 " in unread or b"HTTP/1.1 504 " in unread, unread[:300])
    return "413 of limits.body; whoever is not read is held back"


def _send(me: Attacker, program: str) -> bytes:
    """Send a body until an answer comes, and return that."""
    answer = me.call(program, query={"first": "1"})
    code = answer.headers.get("x-sandpost-code", "")
    expect(code, answer.body)
    wire, sent, seen = me.connect(), 0, b""
    try:
        wire.write(
            f"POST {wire.target}&webtask_code={code} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        with suppress(OSError):
            # Interim heads, by which the proxy finds out who has gone, are none.
            while sent < _MOST and b"HTTP/1.1 4" not in seen and b"HTTP/1.1 5" not in seen:
                wire.write(_PIECE)
                sent += len(_PIECE)
                with suppress(TimeoutError):
                    seen += wire.read(65536, 0.001)
        return seen
    finally:
        wire.close()


CASE = Case(part="resources", title="Bodies without end", attack=attack, limits={"body": "4MiB"}, quick=False)

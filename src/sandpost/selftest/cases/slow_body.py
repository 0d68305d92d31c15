"""Bodies that come a byte at a time, on many connections: of calls that have begun, and of programs that have not.

Weaker: a pause that is never long enough to be one holds a call, its sandbox and a place for as long as one likes.
Must: 504 at `limits.deadline` for each call; half programs cost their bytes, and as many again are served.
"""

import time

from sandpost.selftest.case import Attacker, Case, Wire, expect

PROGRAM = b"return function (context, req, res) { req.resume(); req.on('end', () => res.end('whole')) }"
_CALLS, _PROGRAMS = 20, 20
_PATIENCE = 30.0


def attack(me: Attacker) -> str:
    first = me.send(
        b"POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
        % (len(PROGRAM), PROGRAM)
    )
    code = next((line.split()[1] for line in first.split(b"\r\n") if line.lower().startswith(b"x-sandpost-code:")), b"")
    expect(code, first[:300])
    calls = [_open(me, b"&webtask_code=" + code) for _ in range(_CALLS)]
    programs = [_open(me, b"") for _ in range(_PROGRAMS)]
    try:
        began, told = time.monotonic(), dict[Wire, bytes]()
        while len(told) < _CALLS and time.monotonic() - began < _PATIENCE:
            time.sleep(0.2)
            for wire in calls:
                if wire not in told and (seen := _drip(wire)) is not None:
                    told[wire] = seen
            for wire in programs:
                _drip(wire)
        expect(len(told) == _CALLS, f"{_CALLS - len(told)} of {_CALLS} calls were still open after {_PATIENCE:g} s")
        other = [
            seen for seen in told.values() if not seen.startswith(b"HTTP/1.1 504 ") or b"limits.deadline" not in seen
        ]
        expect(not other, other and other[0][:300])
        expect(me.call(PROGRAM).body == b"whole", "the next call is not served")
    finally:
        for wire in calls + programs:
            wire.close()
    return f"{_CALLS} calls told 504"


def _open(me: Attacker, query: bytes) -> Wire:
    wire = me.connect()
    wire.write(b"POST %s%s HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" % (wire.target.encode(), query))
    return wire


def _drip(wire: Wire) -> bytes | None:
    """Send a byte; return what came, if anything did."""
    try:
        wire.write(b" ")
        return wire.read(65536, 0.001)
    except TimeoutError:
        return None
    except OSError:
        return b""


CASE = Case(part="resources", title="Slow bodies", attack=attack, quick=False)

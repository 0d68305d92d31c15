"""Answers in chunks of a byte, several at once.

Weaker: whoever reads takes all that has come before it serves the next one, six bytes at a time.
Must: the answers are whole, and nobody else waits for them.
"""

from sandpost.selftest.case import Attacker, Case, expect

_AT_ONCE = 4
_PIECES = 4
_CHUNKS = 40_000
PROGRAM = f"""
return function (context, req, res) {{
  const piece = Buffer.from('1\\r\\nx\\r\\n'.repeat({_CHUNKS}));
  let left = {_PIECES};
  const more = () => {{
    while (left-- > 0) if (!req.socket.write(piece)) return req.socket.once('drain', more);
    req.socket.end('0\\r\\n\\r\\n');
  }};
  req.socket.write('HTTP/1.1 200 OK\\r\\nx-sandpost-wire: 1\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n');
  more();
}}
"""


def attack(me: Attacker) -> str:
    waits = [me.start(PROGRAM) for _ in range(_AT_ONCE)]
    for wait in waits:
        answer = wait(30)
        whole = _PIECES * _CHUNKS
        expect(answer.status == 200 and answer.body == b"x" * whole, f"{answer.status}, {len(answer.body)} of {whole}")
    return f"{_AT_ONCE} answers of {_PIECES * _CHUNKS} chunks"


CASE = Case(part="exchange", title="Chunks of a byte", attack=attack)

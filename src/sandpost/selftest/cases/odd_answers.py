"""Answers that a program writes by itself, each wrong in another way, or with more behind it.

Weaker: a proxy that reads them otherwise than the client, or the next caller gets what is left over.
Must: 502, or the answer without what it may not have; the next caller has his own.
"""

import base64

from sandpost.selftest.case import Attacker, Case, answered, expect

_HEAD = "HTTP/1.1 200 OK\r\nx-sandpost-wire: 1\r\n"
WRONG = {
    "no head": "forged",
    "HTTP/0.9": "forged\n",
    "a status of four digits": "HTTP/1.1 2000 OK\r\nx-sandpost-wire: 1\r\ncontent-length: 0\r\n\r\n",
    "a switch that nobody asked for": "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nforged",
    "interim heads without end": "HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000
    + _HEAD
    + "content-length: 6\r\n\r\nforged",
    "two lengths": _HEAD + "content-length: 1\r\ncontent-length: 6\r\n\r\nforged",
    "a length beside chunks": _HEAD + "content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nforged",
    "a folded line": _HEAD + "x: a\r\n b\r\ncontent-length: 0\r\n\r\n",
    "a line that ends bare": _HEAD + "x: a\ny: b\r\ncontent-length: 0\r\n\r\n",
    "a head without end": _HEAD + "x: y\r\n" * 20_000 + "content-length: 6\r\n\r\nforged",
    "the platform's error": "HTTP/1.1 503 No\r\nx-sandpost-error: no_room\r\ncontent-length: 6\r\n\r\nforged",
}
BARE = (
    "res.statusCode = 204; res.end('forged')",
    "res.statusCode = 304; res.end('forged')",
    "res.writeHead(200, { trailer: 'x-forged' }); res.addTrailers({ 'x-forged': 'forged' }); res.end()",
)
OWN = "return function (cb) { cb(null, 'own') }"


def attack(me: Attacker) -> str:
    for form, text in WRONG.items():
        data = base64.b64encode(text.encode()).decode()
        answer = me.call(f"return function (context, req, res) {{ req.socket.end(Buffer.from('{data}', 'base64')) }}")
        expect((answer.status, answer.reason) == (502, "bad_gateway"), f"{form}: {answer.status} {answer.body[:200]!r}")
        answered(me.call(OWN), "own")
    for program in BARE:
        first = _request(f"return function (context, req, res) {{ {program} }}").replace(b"Connection: close\r\n", b"")
        seen = me.send(first + _request(OWN))
        expect(b"forged" not in seen and seen.count(b"HTTP/1.1 ") == 2 and seen.endswith(b'"own"'), seen[:300])
    headless = "return function (context, req, res) { res._hasBody = true; res.write('forged'); res.end('forged') }"
    code = me.call(headless).headers.get("x-sandpost-code", "")
    expect(code, "no x-sandpost-code came back")
    seen = me.send(f"HEAD {{target}}&webtask_code={code} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + _request(OWN))
    expect(b"forged" not in seen and seen.count(b"HTTP/1.1 ") == 2 and seen.endswith(b'"own"'), seen[:300])
    return f"{len(WRONG) + len(BARE) + 1} forms"


def _request(program: str) -> bytes:
    text = program.encode()
    return b"POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text)


CASE = Case(part="exchange", title="Answers that are none", attack=attack)

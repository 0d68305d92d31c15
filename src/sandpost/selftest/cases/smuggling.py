"""Requests inside requests: two lengths, a length beside chunks, bare line ends, folded lines, odd chunk sizes.

Weaker: two parsers that read the same bytes differently: what the first takes for a body is the second's next request.
Must: each is refused with 400 and the connection closed, before anything of it runs.
"""

from sandpost.selftest.case import Attacker, Case, expect

INNER = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
FORMS = {
    "length and chunks": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 37\r\n\r\n",
    "a list of lengths": b"Content-Length: 0, 37\r\n\r\n",
    "a signed length": b"Content-Length: +0\r\n\r\n",
    "a space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding twice": b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "a coding in a tab": b"Transfer-Encoding:\tchunked\x0b\r\n\r\n0\r\n\r\n",
    "a folded line": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a bare line feed": b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare return": b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size with a sign": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a chunk size with 0x": b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
    "a chunk size beyond 64 bits": b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n",
    "a chunk that lies": b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
    "a zero byte": b"X: a\0b\r\n\r\n",
    "no host": b"",
}


def attack(me: Attacker) -> str:
    for form, rest in FORMS.items():
        host = b"Host: x\r\n" if rest else b""
        seen = me.send(b"POST {target} HTTP/1.1\r\n" + host + (rest or b"\r\n") + INNER, timeout=5)
        refused = seen.startswith(b"HTTP/1.1 400 ") and seen.count(b"HTTP/1.1 ") == 1
        # A program of whatever was taken for its body is refused as well, but otherwise.
        expect(refused and b"malformed_request" in seen, f"{form}: {seen[:200]!r}")
    return f"{len(FORMS)} forms refused"


CASE = Case(part="exchange", title="Request smuggling", attack=attack)

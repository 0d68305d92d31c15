"""Clients that speak HTTP as few do: many requests at once, HTTP/1.0, `Expect`, an end before the answer, other protocols.

Weaker: answers change places, a client's end is taken for its leaving, a body is waited for that never comes.
Must: each gets the answers to what it asked, in order, or is refused.
"""

from sandpost.selftest.case import Attacker, Case, expect

_POST = b"POST {target} HTTP/1.1\r\nHost: x\r\n"


def attack(me: Attacker) -> str:
    many = me.send(b"".join(_post(n) for n in range(1, 20)) + _post(20, b"Connection: close\r\n"))
    order = [part.partition(b"\r\n\r\n")[2] for part in many.split(b"HTTP/1.1 200 ")[1:]]
    expect(order == [b"%d" % n for n in range(1, 21)], f"the answers to 1 .. 20 were {order}")

    old = me.send(_post(1).replace(b"HTTP/1.1", b"HTTP/1.0"))
    expect(old.startswith(b"HTTP/1.1 200 ") and old.endswith(b"\r\n\r\n1"), old[:200])

    head, _, body = _post(2, b"Expect: 100-continue\r\nConnection: close\r\n").partition(b"\r\n\r\n")
    wire = me.connect()
    try:
        wire.write(head.replace(b"{target}", wire.target.encode()) + b"\r\n\r\n")
        expect(wire.read(4096).startswith(b"HTTP/1.1 100 "), "no 100 came")
        wire.write(body)
        expect(wire.read(65536).startswith(b"HTTP/1.1 200 "), "no answer came behind the 100")
    finally:
        wire.close()

    for form, data in {
        "another expectation": _post(3, b"Expect: the-unexpected\r\n"),
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP/0.9": b"GET {target}\r\n\r\n",
        "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        "a proxy's way": b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\n\r\n",
    }.items():
        seen = me.send(data, timeout=5)
        expect(seen[9:10] in {b"4", b"5"} and seen.count(b"HTTP/1.1 ") == 1, f"{form}: {seen[:200]!r}")
    return "22 answers, each its own; 5 others refused"


def _post(number: int, headers: bytes = b"") -> bytes:
    program = b"return function (cb) { setTimeout(() => cb(null, %d), %d) }" % (number, 20 - number)
    return _POST + headers + b"Content-Length: %d\r\n\r\n%s" % (len(program), program)


CASE = Case(part="exchange", title="Odd clients", attack=attack)

"""Paths that mean another tenant, or another route, to whoever normalises them.

Weaker: `/a/../b` is checked as `a` and runs as `b`; `%2e`, `%2f`, `%00` and look-alikes likewise.
Must: each is refused; none is normalised.
"""

from sandpost.selftest.case import Attacker, Case, expect

FORMS = (
    "/{t}/../{n}",
    "/./{n}",
    "//{n}",
    "/{t}%2f..%2f{n}",
    "/%2e%2e/{n}",
    "/{t}%00",
    "/{T}",
    "/{t}.",
    "/{t};{n}",
    "/{t}%20",
    "/-{t}",
    "/_{t}",
    "/{t}\u0430",
    "/.{t}",
    "/a" + "a" * 64,
)


def attack(me: Attacker) -> str:
    key = me.connect()
    secret = key.target.rpartition("?")[2]
    key.close()
    for form in FORMS:
        path = form.format(t=me.tenant, n=me.neighbour, T=me.tenant.upper())
        head = f"POST {path}?{secret} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        seen = me.send(head.encode(), timeout=5)
        status = seen[9:12]
        # A rest of the path belongs to the program of the tenant it begins with, and is not normalised.
        own = path.startswith(f"/{me.tenant}/")
        expect(status in {b"400", b"403", b"404"} or own, f"{form}: {seen[:200]!r}")
    return f"{len(FORMS)} forms refused"


CASE = Case(part="exchange", title="Paths and names", attack=attack)

"""Paths that mean another tenant, or another route, to whoever normalises them.

Weaker: `/a/../b` is checked as `a` and runs as `b`; `%2e`, `%2f`, `%00` and look-alikes likewise.
Must: each is refused; none is normalised. A rest of the path is the program's, of the tenant that the path begins with.
"""

import secrets

from sandpost.selftest.case import Answer, Attacker, Case, expect

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


MARK = "require('fs').writeFileSync('/tmp/whose', '%s')"
WHOSE = b"""return function (cb) {
  let mark = '';
  try { mark = require('fs').readFileSync('/tmp/whose', 'utf8') } catch {}
  cb(null, 'reached ' + mark);
}"""
REFUSED = {(400, "invalid_name"), (400, "malformed_request"), (404, "not_found")}


def attack(me: Attacker) -> str:
    mark = secrets.token_hex(8)
    me.inside(MARK % mark)
    key = me.connect()
    secret = key.target.rpartition("?")[2]
    key.close()
    for form in FORMS:
        path = form.format(t=me.tenant, n=me.neighbour, T=me.tenant.upper())
        head = f"POST {path}?{secret} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(WHOSE)}\r\n\r\n"
        seen = me.send(head.encode() + WHOSE, timeout=5)
        top, _, body = seen.partition(b"\r\n\r\n")
        if path.startswith(f"/{me.tenant}/"):
            expect(body == f'"reached {mark}"'.encode(), f"{form}: {seen[:200]!r}")
        else:
            answer = Answer(int(top[9:12] or b"0"), {}, body)
            expect((answer.status, answer.reason) in REFUSED, f"{form}: {seen[:200]!r}")
    return f"{len(FORMS)} forms refused"


CASE = Case(part="exchange", title="Paths and names", attack=attack)

"""A tenant's key, used for another tenant, for the operator's routes, and changed a little.

Weaker: a key that is checked and a tenant that is not.
Must: 403 each time.
"""

from sandpost.selftest.case import Attacker, Case, expect


def attack(me: Attacker) -> str:
    own = me.key(me.tenant)
    program = b"return function (cb) { cb(null, 1) }"
    served = me.request("POST", f"/{me.tenant}", own, program)
    expect(served.status == 200, served.body)
    swapped = own[:-1] + ("0" if own[-1] != "0" else "1")
    tries = [
        ("POST", f"/{me.neighbour}", own, program), ("POST", f"/{me.tenant}", swapped, program), ("POST", f"/{me.tenant}", own[:-1], program),
        ("POST", f"/{me.tenant}", own.upper(), program), ("GET", f"/api/tenants/{me.neighbour}", own, b""), ("PUT", f"/api/tenants/{me.tenant}", own, b"{}"),
        ("POST", "/api/keys", own, b"{}"), ("DELETE", f"/api/tenants/{me.neighbour}", own, b""),
    ]  # fmt: skip
    for method, path, key, body in tries:
        answer = me.request(method, path, key, body)
        expect(answer.status == 403 and answer.reason, f"{method} {path}: {answer.status} {answer.body!r}")
    listed = me.request("GET", "/api/tenants", own).body.decode()
    expect(me.tenant in listed and me.neighbour not in listed, listed)
    return f"{len(tries)} tries refused"


CASE = Case(part="identity", title="Another tenant's key", attack=attack)

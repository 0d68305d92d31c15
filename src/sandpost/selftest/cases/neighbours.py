"""Every neighbour near by, at the port where their runtimes listen.

Near by is the /24 of its own address: installations' blocks are whole ones, so that no address of anybody else's is tried.

Weaker: a bridge or a flat network lets tenants call one another's sandboxes past the proxy.
Must: no connection, though they are there and listen, and the log says that they were refused.
"""

from sandpost.selftest.case import Attacker, Case, expect
from sandpost.selftest.programs import CONNECT

PROGRAM = (
    CONNECT
    + """
const own = require('os').networkInterfaces().eth0?.[0]?.address ?? '198.18.0.1';
const [a, b, c, d] = own.split('.').map(Number);
const others = Array.from({ length: 256 }, (_, n) => n).filter((n) => n !== d);
return await reached(others.map((n) => [`${a}.${b}.${c}.${n}`, 8000]));
"""
)


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    expect(not found, f"connected: {found}")
    return "no connection to 255 addresses"


CASE = Case(part="network", title="Neighbours", attack=attack, log="refused")

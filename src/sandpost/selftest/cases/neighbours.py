"""Every neighbour near by, at the port where their runtimes listen.

Weaker: a bridge or a flat network lets tenants call one another's sandboxes past the proxy.
Must: no connection, though they are there and listen.
"""

from sandpost.selftest.case import Attacker, Case, expect
from sandpost.selftest.programs import CONNECT

PROGRAM = (
    CONNECT
    + """
const own = require('os').networkInterfaces().eth0?.[0]?.address ?? '198.18.0.1';
const [a, b, c, d] = own.split('.').map(Number);
const base = ((a << 24) | (b << 16) | (c << 8) | d) >>> 0;
const places = [];
for (let n = -128; n <= 128; n++) {
  const address = (base + n) >>> 0;
  if (address !== base) places.push([[24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.'), 8000]);
}
return await reached(places);
"""
)


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    expect(not found, f"connected: {found}")
    return "no connection to 256 addresses"


CASE = Case(part="network", title="Neighbours", attack=attack)

"""IPv6, where only IPv4 was thought of.

Weaker: rules for one protocol leave the other open, link-local addresses above all.
Must: no address but loopback's, no route, no connection.
"""

from sandpost.selftest.case import Attacker, Case, expect
from sandpost.selftest.programs import CONNECT

PROGRAM = (
    CONNECT
    + """
const addresses = Object.values(require('os').networkInterfaces()).flat().filter((one) => one.family === 'IPv6' && !one.internal).map((one) => one.address);
const found = await reached([['fe80::1%eth0', 22], ['ff02::1%eth0', 22], ['2001:db8::1', 80], ['fd00::1', 80], ['64:ff9b::7f00:1', 8721]]);
return [...addresses, ...found];
"""
)


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    expect(not found, found)
    return "none"


CASE = Case(part="network", title="IPv6", attack=attack)

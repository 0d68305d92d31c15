"""The host's own addresses: the other end of the link, its loopback by tricks, its neighbours' gateways.

Weaker: services of the host trust who comes from its own networks.
Must: no connection to any port.
"""

from contextlib import suppress

from sandpost.selftest.case import Attacker, Case, Untried, expect
from sandpost.selftest.programs import CONNECT

PROGRAM = (
    CONNECT
    + """
const listens = %d;
const own = require('os').networkInterfaces().eth0?.[0]?.address ?? '198.18.0.1';
const last = Number(own.split('.')[3]);
const gateway = own.replace(/[0-9]+$/, String(last ^ 1));
const ports = [22, 25, 53, 80, 111, 443, 2375, 2379, 3306, 5432, 6379, 8000, 8080, 8443, 8721, 9092, 9100, 10250, listens];
return await reached(ports.map((port) => [gateway, port]));
"""
)


def attack(me: Attacker) -> str:
    # Where nobody listens a missing wall would not be seen; from afar there are the usual services alone.
    with suppress(Untried), me.host().listener() as port:
        return _attempt(me, port)
    return _attempt(me, 1)


def _attempt(me: Attacker, port: int) -> str:
    found = me.inside(PROGRAM % port)
    expect(not found, f"connected: {found}")
    return "no connection to 19 ports"


CASE = Case(part="network", title="The host's addresses", attack=attack)

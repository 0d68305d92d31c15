"""The host's own addresses: the other end of the link, all that it has besides, its loopback by tricks, neighbours' gateways.

Weaker: services of the host trust who comes from its own networks.
Must: no connection to any port, and the log says that they were refused.
"""

import json
from contextlib import suppress

from sandpost.selftest.case import Attacker, Case, Untried, expect
from sandpost.selftest.programs import CONNECT

_MOST = 32
"""Addresses of the host that are tried: it has one more for each sandbox."""
PROGRAM = (
    CONNECT
    + """
const listens = %d, addresses = %s;
const own = require('os').networkInterfaces().eth0?.[0]?.address ?? '198.18.0.1';
const last = Number(own.split('.')[3]);
const gateway = own.replace(/[0-9]+$/, String(last ^ 1));
const ports = [22, 25, 53, 80, 111, 443, 2375, 2379, 3306, 5432, 6379, 8000, 8080, 8443, 8721, 9092, 9100, 10250, listens];
const loopback = ['127.0.0.1', '127.1', '2130706433', '0x7f000001', '127.255.255.254', '0.0.0.0', '0', '::1', '::ffff:127.0.0.1'];
return await reached([
  ...ports.map((port) => [gateway, port]),
  ...addresses.flatMap((host) => [[host, listens], [host, 22]]),
  ...loopback.flatMap((host) => [[host, listens], [host, 22]]),
]);
"""
)


def attack(me: Attacker) -> str:
    # Where nobody listens a missing wall would not be seen; from afar there are the usual services alone.
    with suppress(Untried), me.host().listener() as port:
        return _attempt(me, port, me.host().addresses()[:_MOST])
    return _attempt(me, 1, [])


def _attempt(me: Attacker, port: int, addresses: list[str]) -> str:
    found = me.inside(PROGRAM % (port, json.dumps(addresses)))
    expect(not found, f"connected: {found}")
    return f"no connection to {len(addresses) + 10} addresses"


CASE = Case(part="network", title="The host's addresses", attack=attack, log="refused")

"""Private, shared and link-local networks, multicast and broadcast.

Weaker: the operator's databases are there.
Must: no connection, no datagram sent.
"""

from sandpost.selftest.case import Attacker, Case, expect
from sandpost.selftest.programs import CONNECT

PROGRAM = (
    CONNECT
    + """
const hosts = ['10.0.0.1', '10.255.255.254', '100.64.0.1', '172.16.0.1', '172.17.0.1', '172.31.255.254', '192.168.0.1', '192.168.1.1', '198.18.0.1', '0.0.0.1'];
const found = await reached(hosts.flatMap((host) => [[host, 80], [host, 22]]));
const dgram = require('dgram');
for (const host of ['224.0.0.251', '255.255.255.255', '239.255.255.250']) {
  const socket = dgram.createSocket('udp4');
  const outcome = await new Promise((done) => { socket.send('x', 5353, host, (error) => done(error ? error.code : 'sent')); socket.on('error', () => done('error')) });
  socket.close();
  if (outcome === 'sent' && host === '255.255.255.255') found.push(host);
}
return found;
"""
)


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    expect(not found, f"reached: {found}")
    return "no connection"


CASE = Case(part="network", title="Private networks", attack=attack)

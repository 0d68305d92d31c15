"""Private, shared and link-local networks, multicast and broadcast.

Weaker: the operator's databases are there.
Must: no connection; datagrams to many are refused as well, and the log names them.
"""

from sandpost.selftest.case import Attacker, Case, expect
from sandpost.selftest.programs import CONNECT

MANY = """
const socket = require('dgram').createSocket('udp4');
socket.on('error', () => {});
await new Promise((done) => socket.bind(0, done));
socket.setBroadcast(true);
const sent = await Promise.all(['224.0.0.251', '255.255.255.255', '239.255.255.250'].map(
  (host) => new Promise((done) => socket.send('x', 5353, host, (error) => done(error ? error.code : 'sent')))));
socket.close();
return sent;
"""
"""No answer says what became of them: to what was sent to many none is given."""
PROGRAM = (
    CONNECT
    + """
const hosts = ['10.0.0.1', '10.0.0.5', '10.255.255.254', '100.64.0.1', '100.64.0.5', '172.16.0.1', '172.16.0.5', '172.17.0.1', '172.31.255.254',
  '192.168.0.1', '192.168.1.1', '192.168.1.5', '198.18.0.1', '240.0.0.5', '0.0.0.1'];
return await reached(hosts.flatMap((host) => [[host, 80], [host, 22], [host, 5432]]));
"""
)


def attack(me: Attacker) -> str:
    sent = set(me.inside(MANY))
    # gVisor's kernel has no route for some of them.
    expect(me.engine == "runsc" or sent == {"sent"}, f"of datagrams to many became: {sent}")
    unseen = me.told("224.0.0.251 (multicast)", "239.255.255.250", "255.255.255.255") if sent == {"sent"} else ""
    found = me.inside(PROGRAM)
    expect(not found, f"reached: {found}")
    return f"no connection; datagrams to many refused{unseen}"


CASE = Case(part="network", title="Private networks", attack=attack, log="refused")

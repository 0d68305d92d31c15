"""Connections and datagrams to where nobody may go, without a pause: the other end of the link, and metadata.

Weaker: what is refused costs an entry of a table that the machine shares, a line of the host's log, an answer each.
Must: none is had; the neighbour notices nothing, and his log says that they were refused.
"""

from sandpost.selftest.case import Attacker, Case, expect
from sandpost.selftest.programs import CONNECT

PROGRAM = (
    CONNECT
    + """
const dgram = require('dgram');
const own = require('os').networkInterfaces().eth0?.[0]?.address ?? '198.18.0.1';
const gateway = own.replace(/[0-9]+$/, String(Number(own.split('.')[3]) ^ 1));
const hosts = [gateway, '169.254.169.254'];
const found = await reached(hosts.map((host) => [host, 80]));
if (found.length) return { had: found.length, tried: hosts.length };
const socket = dgram.createSocket('udp4'); socket.on('error', () => {});
const all = new Set(), began = Date.now();
let had = 0, tried = 0;
// A slow sandbox is given time for more than the first ones.
while (Date.now() < began + (tried > 200 ? 1500 : 6000)) {
  // A few a turn: where calls are slow, the loop must still be seen to run.
  for (let some = 0; some < 20 && all.size < 200; some++) {
    const one = net.connect({ host: hosts[tried % hosts.length], port: 1 + tried % 65535, timeout: 300 });
    const over = () => { all.delete(one); one.destroy() };
    one.on('connect', () => { had++; over() }); one.on('error', over); one.on('timeout', over);
    all.add(one);
    for (const host of hosts) socket.send('x', 1 + tried % 65535, host, () => {});
    tried++;
  }
  await new Promise((done) => setTimeout(done, 1));
}
for (const one of all) one.destroy();
socket.close();
return { had, tried };
"""
)


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    expect(found["had"] == 0, f"{found['had']} of {found['tried']} connections were had")
    expect(found["tried"] > 200, f"{found['tried']} tries alone")
    return f"none of {found['tried']} connections"


CASE = Case(
    part="network",
    title="A flood of refused connections",
    attack=attack,
    # Else a missing wall would be covered by those of the limits.
    limits={"connections": 0, "connection_rate": 0, "deadline": "10s"},
    log="refused",
)

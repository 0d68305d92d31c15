"""The cloud's metadata service, in every spelling of its address.

Weaker: a filter of texts knows one spelling; the resolver knows them all.
Must: no connection, and the log says that it was refused. Azure's other one (168.63.129.16) is a public address, which no packet
of this is sent to: the tests of the firewall try it, in a lab.
"""

from sandpost.selftest.case import Attacker, Case, expect
from sandpost.selftest.programs import CONNECT

PROGRAM = (
    CONNECT
    + """
const hosts = ['169.254.169.254', '2852039166', '0xa9fea9fe', '0251.0376.0251.0376', '169.254.43518', '::ffff:169.254.169.254', '::ffff:a9fe:a9fe',
  '64:ff9b::a9fe:a9fe', 'fd00:ec2::254', '100.100.100.200', '192.0.0.192'];
return await reached(hosts.flatMap((host) => [[host, 80], [host, 443]]));
"""
)


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    expect(not found, f"connected: {found}")
    return "no connection in 11 spellings"


CASE = Case(part="network", title="Metadata in every spelling", attack=attack, log="refused")

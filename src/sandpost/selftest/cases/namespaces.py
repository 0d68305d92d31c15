"""Namespaces: are they the host's, or another tenant's?

Weaker: a container that shares one of them shares what is in it.
Must: seven of its own, in which no process of anybody else is.
"""

import os

from sandpost.selftest.case import Attacker, Case, expect

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
PROGRAM = f"""
const kinds = {list(KINDS)};
return Object.fromEntries(kinds.map((kind) => {{
  try {{ return [kind, require('fs').readlinkSync('/proc/self/ns/' + kind)] }} catch {{ return [kind, ''] }}
}}));
"""


def attack(me: Attacker) -> str:
    host = me.host()
    found = me.inside(PROGRAM)
    # gVisor's kernel shows those that it has, which are none of the host's; its own process stands in seven as well.
    expect(me.engine == "runsc" or all(found.values()), f"not shown: {found}")
    shared = [kind for kind in KINDS if found[kind] == os.readlink(f"/proc/self/ns/{kind}")]
    expect(not shared, f"shared with the host: {shared}")
    strangers = [] if me.engine == "runsc" else host.strangers(found, me.sandbox())
    expect(not strangers, f"shared: {strangers[:5]}")
    return "seven of its own"


CASE = Case(part="escape", title="Namespaces", attack=attack)

"""Descriptors that came in with the first process, and what can be reached through each.

Weaker: an open folder of the host is a way out (`openat(fd, "../../..")`), CVE-2024-21626.
Must: pipes, sockets and the kernel's own kinds alone; through none of them a folder opens.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
const kinds = %s;
const found = [];
for (const pid of ['1', 'self']) for (const fd of fs.readdirSync(`/proc/${pid}/fd`)) {
  let to = '';
  try { to = fs.readlinkSync(`/proc/${pid}/fd/${fd}`) } catch { continue }
  if (!kinds.test(to)) found.push(to);
  for (const up of ['.', '..', '../../../../etc/shadow']) {
    try { fs.statSync(`/proc/${pid}/fd/${fd}/${up}`); found.push(`${to} opens ${up}`) } catch (error) { if (!['ENOTDIR', 'ENOENT', 'EACCES'].includes(error.code)) found.push(to + error.code) }
  }
}
return found.filter((one) => !/^\\/proc\\/[0-9]+\\/fd opens/.test(one));
"""


_KINDS = (
    r"^(pipe|socket|anon_inode):|^\/dev\/(null|urandom|random)$|^\/proc\/[0-9]+\/fd$"
    r"|^\/(run\/.*|.*fifos.*)\/(out|err|log)$|^\/(out|err|log)$"
)
_PASSED_IN = r"^host:\[[0-9]+\]$"
"""How gVisor's kernel calls a descriptor that it was given for its program: the three FIFOs."""


def attack(me: Attacker) -> str:
    kinds = f"{_KINDS}|{_PASSED_IN}" if me.engine == "runsc" else _KINDS
    found = me.inside(PROGRAM % f"/{kinds}/")
    expect(not found, found)
    return "pipes and sockets alone"


CASE = Case(part="escape", title="Inherited descriptors", attack=attack)

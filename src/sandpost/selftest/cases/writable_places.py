"""Every place where a file could be left for the next owner of this user id, or for the host.

Weaker: `/dev/shm`, `/var/tmp`, a home, message queues: they outlive the tenant.
Must: `/tmp` alone, and it is empty for a new sandbox.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
const left = fs.readdirSync('/tmp');
const places = [];
const walk = (folder, depth) => {
  let entries = [];
  try { entries = fs.readdirSync(folder, { withFileTypes: true }) } catch { return }
  const path = `${folder}/.probe`;
  try { fs.writeFileSync(path, 'x'); fs.unlinkSync(path); places.push(folder) } catch {}
  if (depth > 0) for (const entry of entries) if (entry.isDirectory() && !/^\\/(proc|sys)$/.test(folder + entry.name)) walk(`${folder}/${entry.name}`.replace('//', '/'), depth - 1);
};
walk('/', 4);
return { left, places };
"""


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    expect(found["left"] == [] and found["places"] == ["/tmp"], found)
    return "/tmp alone"


CASE = Case(part="escape", title="Places to leave something", attack=attack)

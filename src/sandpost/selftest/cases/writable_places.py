"""Every place where a file could be left for the next owner of this user id, or for the host.

Weaker: `/dev/shm`, `/var/tmp`, a home, message queues: they outlive the tenant.
Must: `/tmp` alone, and it is empty for a new sandbox; all else is mounted read-only, whoever may write to it.
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
const mounts = fs.readFileSync('/proc/self/mountinfo', 'utf8').trim().split('\\n').map((line) => line.split(' '));
const writable = mounts.filter((one) => !one[5].split(',').includes('ro')).map((one) => one[4]).filter((path) => !/^\\/(proc|dev)\\b/.test(path));
return { left, places, writable };
"""


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    expect(found["left"] == [] and found["places"] == ["/tmp"], found)
    # On gVisor files that are not its own kernel's are the gofer's, whose root is read-only on the host.
    expect(me.engine == "runsc" or found["writable"] == ["/tmp"], f"mounted writable: {found['writable']}")
    return "/tmp alone"


CASE = Case(part="escape", title="Places to leave something", attack=attack)

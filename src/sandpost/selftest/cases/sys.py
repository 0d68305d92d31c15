"""`/sys`: devices, drivers, control groups, firmware.

Weaker: it tells of the host, and parts of it can be written.
Must: there is none; on gVisor one of its own kernel's, which tells the number of processors.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
const files = (folder) => fs.readdirSync(folder, { withFileTypes: true }).flatMap((one) => {
  const path = `${folder}/${one.name}`;
  return one.isDirectory() ? files(path) : [path];
});
try { return [fs.readdirSync('/sys'), files('/sys')] } catch (error) { return [[error.code], []] }
"""


def attack(me: Attacker) -> str:
    shown, files = me.inside(PROGRAM)
    if me.engine == "runsc":
        strange = [path for path in files if not path.startswith("/sys/devices/system/cpu/")]
        expect(not strange, strange)
        return "processors alone"
    expect(shown in ([], ["ENOENT"]), shown)
    return "none"


CASE = Case(part="escape", title="/sys", attack=attack)

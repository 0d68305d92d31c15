"""The engine's own program, by the link of a process that runs it (CVE-2019-5736).

Weaker: `/proc/self/exe` of the engine's process inside is the host's file, and root runs it next time.
Must: nothing that is linked can be written, and the next sandbox starts.
"""

from sandpost.selftest.case import Attacker, Case, expect, typed

PROGRAM = """
const fs = require('fs');
const written = [];
for (const pid of fs.readdirSync('/proc').filter((name) => /^([0-9]+|self|thread-self)$/.test(name))) {
  for (const name of ['exe', 'root/usr/local/bin/node', 'map_files']) {
    try { fs.closeSync(fs.openSync(`/proc/${pid}/${name}`, 'r+')); written.push(`${pid}/${name}`) } catch {}
  }
}
for (const path of ['/usr/local/bin/node', '/usr/bin/tini-static', '/opt/sandpost', '/etc/passwd', '/etc/ld.so.preload']) {
  try { fs.accessSync(path, fs.constants.W_OK); written.push(path) } catch {}
}
return written;
"""


def attack(me: Attacker) -> str:
    written = me.inside(PROGRAM)
    expect(not written, f"open for writing: {written}")
    typed(me.call("return function (cb) { process.exit(0) }"), 500, "exit")
    return "nothing can be written"


CASE = Case(part="escape", title="The engine's own program", attack=attack)

"""Files of the host, by every path that could lead there.

Weaker: a container that shares the host's root, or mounts of it.
Must: none of them can be opened.
"""

from sandpost.selftest.case import Attacker, Case, Untried, expect

PROGRAM = """
const fs = require('fs');
const paths = ['/etc/shadow', '/etc/gshadow', '/root/.bashrc', '/root/.ssh/authorized_keys', '/var/lib/sandpost', '/run/sandpost',
  '/run/docker.sock', '/var/run/docker.sock', '/proc/1/root/etc/shadow', '/proc/self/root/run/sandpost', '/proc/self/cwd/../run/sandpost',
  '/proc/1/cwd/../../etc/shadow', '/var/lib/docker', '/var/run/secrets', '/.dockerenv', '/host', '/mnt/host', '/boot', '/lost+found',
  '/sys/firmware', '/dev/mem', '/dev/kmem', '/dev/sda', '/dev/vda', '/dev/kvm', '/dev/fuse', '/dev/net/tun', '/dev/tty', '/dev/console'];
const opened = paths.filter((path) => {
  try { const found = fs.statSync(path).isDirectory() ? fs.readdirSync(path) : fs.closeSync(fs.openSync(path)); return found === undefined || found.length > 0 }
  catch { return false }
});
const common = Object.fromEntries(%s.map((path) => { try { return [path, fs.readFileSync(path, 'latin1')] } catch { return [path, ''] } }));
return [opened, common];
"""


COMMON = ("/etc/machine-id", "/etc/passwd", "/etc/group")
"""Files that everybody may read: of them there must be others inside, or none."""


def attack(me: Attacker) -> str:
    opened, common = me.inside(PROGRAM % list(COMMON))
    expect(not opened, f"opened {opened}")
    try:
        host = me.host()
    except Untried:
        return "none of 29 opened (host's unseen)"
    same = [path for path, text in common.items() if text and text.encode("latin1") == host.file(path)]
    expect(not same, f"the host's: {same}")
    return "none of 29 opened"


CASE = Case(part="escape", title="Files of the host", attack=attack)

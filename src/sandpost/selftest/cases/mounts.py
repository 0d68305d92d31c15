"""Programs that make namespaces, mounts and device nodes, as far as the root has any.

Weaker: root in the container may, and `mknod` of a disk is all that it takes.
Must: each is refused, or is not there. What needs no program of the root is tried as `system_calls`.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const { spawnSync } = require('child_process');
const tries = [['mount', '-t', 'tmpfs', 'none', '/tmp'], ['mount', '-o', 'remount,rw', '/'], ['umount', '-l', '/proc'], ['unshare', '-U', 'true'], ['unshare', '-r', '-m', 'true'],
  ['unshare', '-n', 'true'], ['unshare', '-p', '-f', 'true'], ['nsenter', '-t', '1', '-m', 'true'], ['chroot', '/tmp', '/bin/true'], ['mknod', '/tmp/sda', 'b', '8', '0'],
  ['mknod', '/tmp/mem', 'c', '1', '1'], ['setpriv', '--reuid', '0', 'true'], ['hostname', 'taken'], ['pivot_root', '/tmp', '/tmp']];
return tries.filter(([name, ...rest]) => spawnSync(name, rest, { timeout: 3000 }).status === 0).map((words) => words.join(' '));
"""


def attack(me: Attacker) -> str:
    done = me.inside(PROGRAM)
    expect(not done, f"done: {done}")
    return "14 ways refused"


CASE = Case(part="escape", title="Mounts, namespaces, device nodes", attack=attack)

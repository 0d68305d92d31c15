"""What the kernel shows and takes in `/proc`: memory, keys, symbols, switches.

Weaker: an unmasked `/proc` shows the host's, and a writable one reboots it.
Must: nothing is read and nothing is written.
"""

from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """
const fs = require('fs');
const read = ['kcore', 'kmsg', 'keys', 'key-users', 'kallsyms', 'timer_list', 'sched_debug', 'slabinfo', 'vmallocinfo', 'modules', 'iomem', 'kpagecount', 'sysrq-trigger', 'config.gz'];
const write = ['sysrq-trigger', 'sys/kernel/core_pattern', 'sys/kernel/modprobe', 'sys/kernel/hostname', 'sys/vm/panic_on_oom', 'sys/kernel/panic',
  'sys/fs/binfmt_misc/register', 'sys/net/ipv4/ip_forward', 'sys/kernel/ns_last_pid', 'irq/0/smp_affinity', 'mtrr', 'acpi/wakeup', 'self/oom_score_adj'];
const found = [];
for (const name of read) { try { if (fs.readFileSync('/proc/' + name).some((byte) => byte !== 0)) found.push('read ' + name) } catch {} }
// What is masked is /dev/null, which takes everything.
const masked = (name) => { try { return fs.statSync('/proc/' + name).isCharacterDevice() } catch { return false } };
for (const name of write) { if (!masked(name)) try { fs.writeFileSync('/proc/' + name, name === 'self/oom_score_adj' ? '-1000' : 'x'); found.push('wrote ' + name) } catch {} }
const mounts = fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\\n').map((line) => line.split(' '));
// The last one counts where several lie on one another.
const over = mounts.filter((one) => one[4] === '/proc/sys').at(-1);
if (!over?.[5].split(',').includes('ro')) found.push('sys is not read-only');
return found;
"""


def attack(me: Attacker) -> str:
    found = me.inside(PROGRAM)
    found = [one for one in found if one != "read iomem"]
    if me.engine == "runsc":
        # gVisor's kernel keeps the number and does nothing with it: the host's kernel sees another. Its /proc/sys is
        # its own.
        found = [one for one in found if one not in {"wrote self/oom_score_adj", "sys is not read-only"}]
    expect(not found, found)
    return "nothing read, nothing written"


CASE = Case(part="escape", title="Secrets and switches in /proc", attack=attack)

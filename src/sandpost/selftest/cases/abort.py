"""`process.abort`, which leaves a core file where it may.

Weaker: core files fill the disk, and hold the memory of whoever shared the process.
Must: 500 `crash`; no core file may be written.
"""

from sandpost.selftest.case import Attacker, Case, expect, typed

PROGRAM = "return function (cb) { process.abort() }"


LIMITS = "return require('fs').readFileSync('/proc/self/limits', 'latin1')"


def attack(me: Attacker) -> str:
    core = next((line for line in me.inside(LIMITS).splitlines() if line.startswith("Max core file size")), "")
    # gVisor's kernel writes none, whatever the limit.
    expect(me.engine == "runsc" or core.split()[4:6] == ["0", "0"], f"a core file may be left: {core}")
    return typed(me.call(PROGRAM), 500, "crash")


CASE = Case(part="exchange", title="process.abort", attack=attack, log="crash:")

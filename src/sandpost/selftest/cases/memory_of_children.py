"""Children that each take a little, and are offered to the kernel's killer before their parent.

Weaker: a limit a process (`ulimit -v`) counts each one alone; the kernel alone ends one child after the other.
Must: the tenant's processes are counted together and the sandbox ends as `memory`.
"""

from sandpost.selftest.case import Case, ends

PROGRAM = """return function (cb) {
  const { spawn } = require('child_process');
  const { readFileSync, writeFileSync } = require('fs');
  const mine = '/proc/self/oom_score_adj';
  const was = readFileSync(mine, 'utf8');
  // Children have what their parent has as they begin; on gVisor nothing reads it.
  writeFileSync(mine, '1000');
  for (let n = 0; n < 12; n++)
    spawn(process.execPath, ['-e', 'const all = []; setInterval(() => all.push(Buffer.alloc(4 << 20, 1)), 5)']);
  writeFileSync(mine, was);
}"""

CASE = Case(
    part="resources",
    title="Memory of children",
    attack=ends(PROGRAM, "memory", "limits.memory"),
    limits={"pids": 256, "deadline": "20s", "blocked_after": "15s"},
    log="memory:",
    quick=False,
)

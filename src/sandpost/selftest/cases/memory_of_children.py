"""Children that each take a little.

Weaker: a limit a process (`ulimit -v`) counts each one alone.
Must: the tenant's processes are counted together and the sandbox ends as `memory`.
"""

from sandpost.selftest.case import Case, ends

PROGRAM = """return function (cb) {
  const { spawn } = require('child_process');
  for (let n = 0; n < 12; n++)
    spawn(process.execPath, ['-e', 'const all = []; setInterval(() => all.push(Buffer.alloc(4 << 20, 1)), 5)']);
}"""

CASE = Case(
    part="resources",
    title="Memory of children",
    attack=ends(PROGRAM, "memory", "limits.memory"),
    limits={"pids": 256, "deadline": "20s", "blocked_after": "15s"},
    log="memory:",
    quick=False,
)

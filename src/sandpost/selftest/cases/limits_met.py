"""A call that fails because a limit was met that ends nothing.

Weaker: the caller hears of a deadline and looks for a slow program; that its processes were refused stands nowhere.
Must: the 504 says which limits were met meanwhile. On gVisor processes are counted by a kernel that nobody outside
asks, so that there it is tried with `/tmp`.
"""

from sandpost.selftest.case import Attacker, Case, expect, typed

MANY = """return function (cb) {
  const { spawn } = require('child_process');
  for (let n = 0; n < 100; n++) spawn('/bin/sleep', ['30'], { stdio: 'ignore' }).on('error', () => {});
}"""
FULL = """return function (cb) {
  try { for (;;) require('fs').appendFileSync('/tmp/all', Buffer.alloc(1 << 20, 1)) } catch { /* it is full */ }
}"""


def attack(me: Attacker) -> str:
    program, setting = (FULL, "limits.tmp") if me.engine == "runsc" else (MANY, "limits.pids")
    answer = me.call(program)
    seen = typed(answer, 504, "deadline", "limits.deadline")
    met = answer.json.get("limits_met", [])
    expect(any(f"`{setting}`" in one for one in met), answer.body)
    return f"{seen}, {met[0]}"


CASE = Case(
    part="resources",
    title="Limits met meanwhile",
    attack=attack,
    limits={"deadline": "5s", "tmp": "16MiB"},
    quick=False,
)

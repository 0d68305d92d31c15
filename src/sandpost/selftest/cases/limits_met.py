"""A call that fails because a limit was met that ends nothing.

Weaker: the caller hears of a deadline and looks for a slow program; that its processes were refused stands nowhere.
Must: the 504 says which limits were met meanwhile.
"""

from sandpost.selftest.case import Attacker, Case, Untried, expect, typed

PROGRAM = """return function (cb) {
  const { spawn } = require('child_process');
  for (let n = 0; n < 100; n++) spawn('/bin/sleep', ['30'], { stdio: 'ignore' }).on('error', () => {});
}"""


def attack(me: Attacker) -> str:
    if me.engine == "runsc":
        raise Untried("what gVisor's kernel refuses is told to the program alone")
    answer = me.call(PROGRAM)
    seen = typed(answer, 504, "deadline", "limits.deadline")
    met = answer.json.get("limits_met", [])
    expect(any("limits.pids" in one for one in met), answer.body)
    return f"{seen}, {met[0]}"


CASE = Case(part="resources", title="Limits met meanwhile", attack=attack, limits={"deadline": "5s"}, quick=False)

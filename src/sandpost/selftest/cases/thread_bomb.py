"""Threads without end.

Weaker: a limit of processes that does not count threads.
Must: no more than `limits.pids`; the sandbox serves on, or ends with one word, and the log says which limit was met.
"""

from sandpost.model.ends import FATAL
from sandpost.selftest.case import Attacker, Case, expect

PROGRAM = """return function (cb) {
  const { Worker } = require('worker_threads');
  let alive = 0;
  try {
    for (let n = 0; n < 100; n++) {
      const worker = new Worker('setInterval(() => {}, 1000)', { eval: true, resourceLimits: { maxOldGenerationSizeMb: 2 } });
      worker.on('online', () => alive++);
      worker.on('error', () => {});
    }
  } catch { /* the next one was refused */ }
  setTimeout(() => cb(null, alive), 1500);
}"""


def attack(me: Attacker) -> str:
    answer = me.call(PROGRAM)
    if answer.status == 200:
        expect(answer.json <= 64, f"{answer.json} threads")
        return f"{answer.json} threads" + (me.told("pids:") if me.engine == "runc" else "")
    expect(answer.reason in {"memory", "crash", "exit", "blocked", "deadline"}, answer.body)
    return f"{answer.status} {answer.reason}" + (me.told(f"{answer.reason}:") if answer.reason in FATAL else "")


CASE = Case(part="resources", title="Thread bomb", attack=attack, limits={"deadline": "10s"}, quick=False)

"""Output without end past the runtime, by a program that does not wait until it is taken.

Weaker: logs fill the disk, or the collector falls behind with everybody's.
Must: what is not read waits in the program's own memory: it is served, fails, or ends by `memory`.
"""

from sandpost.selftest.case import Attacker, Case, answered, typed

PROGRAM = """return function (cb) {
  const line = 'x'.repeat(10000) + '\\n';
  const end = Date.now() + 1000;
  const more = () => { process.stdout.write(line); Date.now() < end ? setImmediate(more) : cb(null, 'done') };
  more();
}"""


def attack(me: Attacker) -> str:
    answer = me.call(PROGRAM)
    if answer.status == 200:
        return answered(answer, "done")
    # Node gives a write up that cannot be had (ENOBUFS), and throws.
    return typed(answer, 500, "async_exception" if answer.reason == "async_exception" else "memory")


CASE = Case(part="resources", title="Raw output flood", attack=attack, limits={"output": "64KiB"}, log="xxxx")

"""Copies of the runtime without end, by `os.fork`.

Weaker: a copy of the server has its sockets, and answers or ends in its stead; without a limit there are ever more.
Must: refused at `limits.pids`; the copies are no server, and the one that is serves on. On gVisor, whose kernel copies more
of a process, memory may end them first.
"""

from sandpost.selftest.case import Attacker, Case, expect, typed
from sandpost.selftest.programs import PYTHON

PROGRAM = f"""{PYTHON}
import errno, os, time


def main(context):
    children, code = [], "none"
    while len(children) < 200:
        try:
            pid = os.fork()
        except OSError as error:
            code = errno.errorcode[error.errno]
            break
        if pid == 0:
            time.sleep(30)
            os._exit(0)
        children.append(pid)
    time.sleep(1.5)
    for pid in children:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    return [code, len(children)]
"""


def attack(me: Attacker) -> str:
    answer = me.call(PROGRAM)
    if answer.status != 200 and me.engine == "runsc":
        return typed(answer, 500, "memory", "limits.memory")
    expect(answer.status == 200, answer.body)
    code, count = answer.json
    expect(code == "EAGAIN" and count <= 64, f"{code} after {count} children")
    return f"EAGAIN after {count} children"


CASE = Case(
    part="resources",
    title="Python: fork bomb",
    attack=attack,
    limits={"deadline": "10s"},
    logged_on={"runc"},
    log="pids:",
    language="python",
    quick=False,
)

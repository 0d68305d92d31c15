"""System calls by `ctypes`: what a program in Python needs no compiler for.

Weaker: a module that is not offered is thought to be out of reach; `ctypes` calls any function of the C library.
Must: each is refused, as `system_calls` says.
"""

import json

from sandpost.selftest.case import Attacker, Case, expect
from sandpost.selftest.cases.system_calls import CALLS, given

# In a process of its own: on gVisor some are given, and would change the runtime.
CHILD = """
import ctypes, json, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
seen = []
for number, arguments in json.load(sys.stdin):
    given = [ctypes.c_char_p(one.encode("latin1")) if isinstance(one, str) else ctypes.c_long(one) for one in arguments]
    value = libc.syscall(ctypes.c_long(number), *given)
    seen.append(-ctypes.get_errno() if value == -1 else value)
print(json.dumps(seen))
"""
BODY = """
import json, subprocess, sys
done = subprocess.run([sys.executable, "-c", %r], input=%r, capture_output=True, text=True, timeout=5)
return [done.returncode, json.loads(done.stdout or "[]"), done.stderr[-300:]]
"""


def attack(me: Attacker) -> str:
    asked = [
        (one.number, [value.decode("latin1") if isinstance(value, bytes) else value for value in one.arguments])
        for one in CALLS.values()
    ]
    status, seen, said = me.inside(BODY % (CHILD, json.dumps(asked)))
    expect(status == 0, f"status {status}: {said}")
    passed = given(me, list(CALLS), seen)
    expect(not passed, f"not refused: {', '.join(passed)}")
    return f"{len(seen)} calls refused"


CASE = Case(part="escape", title="Python: system calls", attack=attack, limits={"deadline": "10s"}, language="python")

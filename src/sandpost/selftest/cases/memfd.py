"""Files that are nowhere but in memory (memfd_create), filled without end.

Weaker: limits of folders do not see them, and limits of a process' memory do not count them.
Must: they count as the tenant's memory, and the sandbox ends as `memory`.
"""

import base64
import platform

from sandpost.selftest.case import Attacker, Case, Untried, typed
from sandpost.selftest.machine_code import MACHINE, Call, program

_MEMFD_CREATE, _FALLOCATE = 319, 285
_FIRST = 3
"""The first descriptor that is free in a program that was given three."""
_PIECE, _PIECES = 8 << 20, 128
"""Each below the limit of a file's size; together more than any tenant of a case may have."""
CALLS = tuple(
    call
    for fd in range(_FIRST, _FIRST + _PIECES)
    for call in (Call(_MEMFD_CREATE, (b"x", 0)), Call(_FALLOCATE, (fd, 0, 0, _PIECE)))
)
PROGRAM = """return function (cb) {
  const fs = require('fs');
  fs.writeFileSync('/tmp/fill', Buffer.from('%s', 'base64'), { mode: 0o700 });
  require('child_process').spawn('/tmp/fill');
}"""


def attack(me: Attacker) -> str:
    if platform.machine() != MACHINE:
        raise Untried(f"its program is for {MACHINE}")
    return typed(me.call(PROGRAM % base64.b64encode(program(CALLS)).decode()), 500, "memory", "limits.memory")


CASE = Case(part="resources", title="Files in memory", attack=attack, log="memory:")

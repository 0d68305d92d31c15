"""A program in Python that takes its runtime apart: objects, modules, threads, descriptors.

Weaker: the server lives in the process of the program, so that who breaks it answers for others, or for nobody.
Must: each call gets exactly one answer by its deadline, whatever it says, and the next one is served by another sandbox.
"""

from sandpost.selftest.case import Attacker, Case, expect
from sandpost.selftest.programs import PYTHON

WAYS = {
    "modules": "import sys\nfor one in list(sys.modules.values()):\n    getattr(one, '__dict__', {}).clear()",
    "objects": "import gc\nfor one in gc.get_objects():\n    isinstance(one, (dict, list)) and one.clear()",
    "descriptors": "import os\nos.closerange(0, 1024)",
    "the answer": "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'HTTP/1.1 200 OK\\r\\n\\r\\n')\n    except OSError: pass",
    "code": "import ctypes\nctypes.memset(id(main) - 64, 0xff, 256)",
}
"""What each goes for, and the program's lines."""


def attack(me: Attacker) -> str:
    seen = []
    for what, lines in WAYS.items():
        body = "".join(f"    {line}\n" for line in lines.splitlines())
        answer = me.call(f"{PYTHON}def main(context):\n{body}    return 'done'")
        expect(answer.status in {200, 400, 500, 502, 503, 504}, f"{what}: {answer.status}")
        seen.append(f"{what}: {answer.status}")
    return ", ".join(seen)


CASE = Case(
    part="exchange",
    title="Python: its own runtime",
    attack=attack,
    limits={"deadline": "2s"},
    language="python",
    quick=False,
)

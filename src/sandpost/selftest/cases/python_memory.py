"""Bytes without end, from Python.

Weaker: a limit that the runtime of one language keeps for itself, which the other one does not know.
Must: ended as `memory`; the answer names setting and amount.
"""

from sandpost.selftest.case import Case, ends
from sandpost.selftest.programs import PYTHON

PROGRAM = f"""{PYTHON}
def main(context):
    kept = []
    while True:
        kept.append(b"x" * (1 << 20))
"""

CASE = Case(
    part="resources",
    title="Python: memory without end",
    attack=ends(PROGRAM, "memory", "limits.memory"),
    limits={"deadline": "10s", "blocked_after": "8s"},
    log="memory:",
    language="python",
)

"""Signals from Python, to every process that can be reached.

Weaker: without a namespace of pids it ends all of that user's.
Must: 500 `crash`; nobody else is reached.
"""

from sandpost.selftest.case import Attacker, Case, typed
from sandpost.selftest.programs import PYTHON

PROGRAM = f"""{PYTHON}
import subprocess


def main(context):
    subprocess.run(["/bin/sh", "-c", "kill -9 -1"])
"""


def attack(me: Attacker) -> str:
    return typed(me.call(PROGRAM), 500, "crash")


CASE = Case(part="exchange", title="Python: kill -9 -1", attack=attack, log="crash:", language="python")

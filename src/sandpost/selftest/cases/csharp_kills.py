"""Signals from C#, by `Process.Start`, to every process that can be reached.

Weaker: without a namespace of pids it ends all of that user's.
Must: 500 `crash`; nobody else is reached.
"""

from sandpost.selftest.case import Attacker, Case, typed
from sandpost.selftest.programs import csharp

PROGRAM = csharp("""
    using (var child = Process.Start("/bin/sh", "-c 'kill -9 -1'")) child.WaitForExit();
    return null;
""")


def attack(me: Attacker) -> str:
    return typed(me.call(PROGRAM), 500, "crash")


CASE = Case(part="exchange", title="C#: kill -9 -1", attack=attack, log="crash:", language="csharp")

"""Threads of .NET without end.

Weaker: without a limit they take the process numbers of the whole machine.
Must: refused at `limits.pids`, as an exception of the program's; the log says so.
"""

from sandpost.selftest.case import Attacker, Case, expect, typed
from sandpost.selftest.programs import csharp

PROGRAM = csharp("""
    var count = 0;
    try {
      for (; count < 2000; count++) new Thread(() => Thread.Sleep(3000), 65536) { IsBackground = true }.Start();
    } catch (Exception error) { return new { count, why = error.GetType().Name }; }
    return new { count, why = "" };
""")


def attack(me: Attacker) -> str:
    answer = me.call(PROGRAM)
    if answer.status != 200:
        return typed(answer, 500, "memory" if me.engine == "runsc" else "crash")
    found = answer.json["seen"]
    expect(found["why"] and found["count"] <= 64, found)
    return f"{found['why']} after {found['count']} threads"


CASE = Case(
    part="resources",
    title="C#: threads without end",
    attack=attack,
    logged_on={"runc"},
    log="pids:",
    language="csharp",
    quick=False,
)

"""A loop of microtasks, which starves timers and sockets and never blocks for long in one function.

Weaker: a watchdog inside the process, on a timer, never runs again.
Must: ended as `blocked` from outside.
"""

from sandpost.selftest.case import Case, ends

PROGRAM = "return function (cb) { const again = () => queueMicrotask(again); again() }"

CASE = Case(
    part="resources",
    title="Endless microtasks",
    attack=ends(PROGRAM, "blocked"),
    limits={"deadline": "10s", "blocked_after": "1s"},
    log="blocked:",
    quick=False,
)

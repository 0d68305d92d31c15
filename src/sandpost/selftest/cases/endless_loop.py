"""An endless loop.

Weaker: functions of many tenants share an event loop, so that one loop stops them all; or nothing but a deadline
watches, and the sandbox is lost for whoever comes next.
Must: ended as `blocked` though the deadline is far, and the next request is served by another sandbox.
"""

from sandpost.selftest.case import Case, ends

PROGRAM = "return function (cb) { for (;;); }"

CASE = Case(
    part="resources",
    title="Endless loop",
    attack=ends(PROGRAM, "blocked"),
    limits={"deadline": "10s", "blocked_after": "1s"},
    log="blocked:",
)

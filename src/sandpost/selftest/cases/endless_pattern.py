"""A regular expression that backtracks for longer than anybody lives.

Weaker: V8 checks for interruption between functions, not inside a match, so that a watchdog by `vm` timeouts waits.
Must: ended as `blocked` from outside.
"""

from sandpost.selftest.case import Case, ends

PROGRAM = "return function (cb) { /^(a+)+$/.test('a'.repeat(60) + 'b'); cb(null, 1) }"

CASE = Case(
    part="resources",
    title="Endless regular expression",
    attack=ends(PROGRAM, "blocked"),
    limits={"deadline": "10s", "blocked_after": "1s"},
    log="blocked:",
    quick=False,
)

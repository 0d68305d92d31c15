"""A heap that grows without end.

Weaker: a limit on V8's heap alone, which buffers and children pass by; without any the host swaps and the kernel ends whoever is largest.
Must: ended as `memory`; the answer names setting and amount.
"""

from sandpost.selftest.case import Case, ends

PROGRAM = "return function (cb) { const all = []; for (;;) all.push(new Array(10000).fill(all.length)) }"

CASE = Case(
    part="resources",
    title="Heap without end",
    attack=ends(PROGRAM, "memory", "limits.memory"),
    # A slow machine takes seconds to fill it.
    limits={"deadline": "10s", "blocked_after": "8s"},
    log="memory:",
)

"""Buffers without end, which lie outside of V8's heap.

Weaker: `--max-old-space-size` counts the heap alone.
Must: ended as `memory`; the answer names setting and amount.
"""

from sandpost.selftest.case import Case, ends

PROGRAM = "return function (cb) { const all = []; for (;;) all.push(Buffer.alloc(1 << 20, 1)) }"

CASE = Case(
    part="resources", title="Buffers without end", attack=ends(PROGRAM, "memory", "limits.memory"), log="memory:"
)

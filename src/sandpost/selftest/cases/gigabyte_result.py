"""A result of a gigabyte.

Weaker: the platform reads a result whole before it passes it on, and pays for it.
Must: what the program builds is its own memory, which ends it.
"""

from sandpost.selftest.case import Case, ends

PROGRAM = "return function (cb) { cb(null, Array.from({ length: 1024 }, () => Buffer.alloc(1 << 20, 97).toString())) }"

CASE = Case(
    part="resources", title="Result of a gigabyte", attack=ends(PROGRAM, "memory", "limits.memory"), log="memory:"
)

"""Bytes without end from C#, some that its own collector knows of and some that it does not.

Weaker: a limit that the runtime of one language keeps for itself, which the other one does not know.
Must: ended as `memory`; the answer names setting and amount.
"""

from sandpost.selftest.case import Case, ends
from sandpost.selftest.programs import csharp

PROGRAM = csharp("""
    var kept = new List<byte[]>();
    for (;;) {
      var bytes = new byte[1 << 19];
      for (var i = 0; i < bytes.Length; i += 512) bytes[i] = 1;
      kept.Add(bytes);
      var more = Marshal.AllocHGlobal(1 << 19);
      for (var i = 0; i < 1 << 19; i += 512) Marshal.WriteByte(more, i, 1);
    }
""")

CASE = Case(
    part="resources",
    title="C#: memory without end",
    attack=ends(PROGRAM, "memory", "limits.memory"),
    log="memory:",
    language="csharp",
)

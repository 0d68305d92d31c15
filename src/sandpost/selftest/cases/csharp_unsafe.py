"""Unsafe code: C# that writes over all memory of its process that can be written to.

Weaker: a sandbox made of what a language does not let one say; this language lets one say it.
Must: it is its own process alone that breaks, 500 `crash`, and the next request is served.
"""

from sandpost.selftest.case import Attacker, Case, typed
from sandpost.selftest.programs import csharp

PROGRAM = csharp("""
    foreach (var line in File.ReadAllLines("/proc/self/maps").Reverse()) {
      var words = line.Split(' ', '-');
      if (!words[2].StartsWith("rw") || line.EndsWith("[stack]")) continue;
      var end = (byte*)Convert.ToInt64(words[1], 16);
      for (var at = (byte*)Convert.ToInt64(words[0], 16); at < end; at++) *at ^= 0x5a;
    }
    return null;
""")


def attack(me: Attacker) -> str:
    return typed(me.call(PROGRAM), 500, "crash")


CASE = Case(part="exchange", title="C#: writes over its own memory", attack=attack, log="crash:", language="csharp")

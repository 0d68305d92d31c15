"""System calls by P/Invoke: any function of the C library, from C#.

Weaker: what the language's own library does not offer is thought to be out of reach.
Must: each is refused, as `system_calls` says.
"""

import base64

from sandpost.selftest.case import Attacker, Case, expect
from sandpost.selftest.cases.system_calls import CALLS, OF_GVISOR, given
from sandpost.selftest.programs import csharp

BESIDE = """
  [DllImport("libc", SetLastError = true)]
  static extern long syscall(long number, IntPtr a, IntPtr b, IntPtr c, IntPtr d, IntPtr e, IntPtr f);
  static IntPtr Bytes(string given) {
    var bytes = Convert.FromBase64String(given);
    var place = Marshal.AllocHGlobal(bytes.Length + 1);
    Marshal.Copy(bytes, 0, place, bytes.Length);
    Marshal.WriteByte(place, bytes.Length, 0);
    return place;
  }
  static long Try(long number, params IntPtr[] given) {
    var all = new IntPtr[6];
    given.CopyTo(all, 0);
    var value = syscall(number, all[0], all[1], all[2], all[3], all[4], all[5]);
    return value == -1 ? -Marshal.GetLastWin32Error() : value;
  }
"""

LEFT_OUT = OF_GVISOR | {"clone into new users"}
"""Not tried on gVisor, which gives them: they would change the runtime's own process, where these are tried. The last one
it refuses only to who has unshared users before."""


def _argument(value: int | bytes) -> str:
    if isinstance(value, int):
        return f"(IntPtr)({value}L)"
    return f'Bytes("{base64.b64encode(value).decode()}")'


def attack(me: Attacker) -> str:
    left_out = LEFT_OUT if me.engine == "runsc" else frozenset()
    asked = {name: one for name, one in CALLS.items() if name not in left_out}
    lines = [f"Try({', '.join([str(one.number), *map(_argument, one.arguments)])})," for one in asked.values()]
    answer = me.call(csharp("\n".join(["return new long[] {", *lines, "};"]), BESIDE))
    expect(answer.status == 200, answer.body)
    seen = answer.json["seen"]
    passed = given(me, list(asked), seen)
    expect(not passed, f"not refused: {', '.join(passed)}")
    return f"{len(seen)} calls refused"


CASE = Case(part="escape", title="C#: system calls", attack=attack, language="csharp")

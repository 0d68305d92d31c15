"""C# by Edge.js on a running platform: what holds on whichever .NET a program chooses by `before`, its first lines."""

from support.platform import Platform

ENDS = [
    ("Environment.Exit(3)", "exit"),
    ("Environment.Exit(0)", "exit"),
    ('new System.Threading.Thread(() => { throw new Exception("alone"); }).Start()', "crash"),
    ("Func<int, int> f = null; f = i => f(i + 1) + 1; f(0)", "crash"),
    ("var all = new List<byte[]>(); for (;;) { var more = new byte[1 << 20]; new Random().NextBytes(more); all.Add(more); }", "memory"),
]  # fmt: skip
"""Code that ends its process, and the word of that end."""

_WALLS = """return (context, cb) => require('edge').func({ source: `
      using System; using System.Diagnostics; using System.Runtime.InteropServices; using System.Threading.Tasks;
      public class Startup {
        [DllImport("libc", SetLastError = true)] static extern int mount(string a, string b, string c, ulong d, IntPtr e);
        [DllImport("libc")] static extern uint getuid();
        public async Task<object> Invoke(object input) {
          var refused = mount("none", "/tmp", "tmpfs", 0, IntPtr.Zero);
          using (var child = Process.Start(new ProcessStartInfo("/bin/echo", "child") { UseShellExecute = false, RedirectStandardOutput = true }))
            return new { refused, why = Marshal.GetLastWin32Error() , uid = (int)getuid(), said = child.StandardOutput.ReadToEnd() };
        } }` })(context, cb)"""


def has_its_word(running: Platform, tenant: str, code: str, word: str, before: str = "") -> None:
    """The end that `code` brings about has its word, and the tenant is served again."""
    program = "return cb => require('edge').func(`async x => { %s; await Task.Delay(9999); return 1; }`)(1, cb)"
    answer = running.call(tenant, before + program % code)
    assert (answer.status, answer.json["reason"]) == (500, word), answer
    assert running.call(tenant, "return cb => cb(null, 1)").json == 1


def is_walled_in(running: Platform, tenant: str, before: str = "") -> None:
    """Native code meets the walls, and a child process does not."""
    answer = running.call(tenant, before + _WALLS)
    assert answer.status == 200, answer
    assert (answer.json["refused"], answer.json["uid"], answer.json["said"]) == (-1, 1000, "child\n")

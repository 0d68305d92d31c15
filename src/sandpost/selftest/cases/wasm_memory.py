"""Memory of WebAssembly, grown and touched page by page.

Weaker: neither the heap's limit nor a count of buffers sees it.
Must: ended as `memory`; the answer names setting and amount.
"""

from sandpost.selftest.case import Case, ends

PROGRAM = """return function (cb) {
  const all = [];
  for (;;) {
    const memory = new WebAssembly.Memory({ initial: 64 });
    new Uint8Array(memory.buffer).fill(1);
    all.push(memory);
  }
}"""

CASE = Case(
    part="resources",
    title="WebAssembly memory without end",
    attack=ends(PROGRAM, "memory", "limits.memory"),
    log="memory:",
)

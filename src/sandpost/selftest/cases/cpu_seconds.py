"""A call that burns CPU without ever blocking the loop for long.

Weaker: probes are answered, so that nothing looks wrong until the deadline, which may be an hour.
Must: where `limits.cpu_seconds` is set, ended as `cpu`; the answer names setting and amount.
"""

from sandpost.selftest.case import Case, ends

PROGRAM = """return function (cb) {
  const burn = () => { const end = Date.now() + 20; while (Date.now() < end); setImmediate(burn) };
  burn();
}"""

CASE = Case(
    part="resources",
    title="CPU without blocking",
    attack=ends(PROGRAM, "cpu", "limits.cpu_seconds"),
    limits={"cpu_seconds": "200ms", "deadline": "30s", "blocked_after": "15s"},
    log="cpu:",
    quick=False,
)

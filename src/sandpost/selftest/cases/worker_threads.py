"""Endless loops in worker threads, while the main thread answers.

Weaker: a watchdog of the event loop sees nothing, and eight threads take eight cores.
Must: served, and all threads together get no more than `limits.cpu`.
"""

import time

from sandpost.selftest.case import Attacker, Case, answered, expect

PROGRAM = """return function (cb) {
  const { Worker } = require('worker_threads');
  for (let n = 0; n < 4; n++) new Worker('for (;;);', { eval: true });
  setTimeout(() => cb(null, 'busy'), 500);
}"""
_SPAN = 1.5
_SLACK = 1.5
"""Quotas are dealt in periods, and a look at the clock takes its time."""


def attack(me: Attacker) -> str:
    answered(me.call(PROGRAM), "busy")
    before, began = me.cpu_seconds(), time.monotonic()
    time.sleep(_SPAN)
    cores = (me.cpu_seconds() - before) / (time.monotonic() - began)
    expect(cores <= me.cpu * _SLACK, f"its threads use {cores:.2f} cores of {me.cpu:g}")
    return f"served, {cores:.2f} cores of {me.cpu:g}"


CASE = Case(part="resources", title="Loops in worker threads", attack=attack)

"""Endless loops in child processes, which outlive the call.

Weaker: a deadline ends the call and nobody ends its children.
Must: served, and all children together get no more than `limits.cpu`; when the tenant goes, they go. On gVisor they can
take so much of the tenant's own share that its runtime counts as blocked.
"""

import time

from sandpost.selftest.case import Attacker, Case, answered, expect, typed

PROGRAM = """return function (cb) {
  const { spawn } = require('child_process');
  for (let n = 0; n < 8; n++) spawn('/bin/sh', ['-c', 'while :; do :; done'], { detached: true, stdio: 'ignore' }).unref();
  setTimeout(() => cb(null, 'busy'), 500);
}"""
_SPAN = 1.5
_SLACK = 1.5


def attack(me: Attacker) -> str:
    answer = me.call(PROGRAM)
    if me.engine == "runsc" and answer.status != 200:
        return typed(answer, 500, "blocked")
    answered(answer, "busy")
    before, began = me.cpu_seconds(), time.monotonic()
    time.sleep(_SPAN)
    cores = (me.cpu_seconds() - before) / (time.monotonic() - began)
    expect(cores <= me.cpu * _SLACK, f"its children use {cores:.2f} cores of {me.cpu:g}")
    return f"served, {cores:.2f} cores of {me.cpu:g}"


CASE = Case(part="resources", title="Loops in child processes", attack=attack, quick=False)

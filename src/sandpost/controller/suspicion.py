"""What a proxy suspects of a sandbox is checked from outside before the sandbox ends for it."""

import asyncio
import time

from sandpost.controller.cpu import CpuHistory
from sandpost.controller.desk import Desk
from sandpost.controller.lifecycle import Sandbox
from sandpost.controller.meter import Meter
from sandpost.model.messages import Suspect

_LOOK_FOR = 0.25
_BUSY = 0.01
"""Share of a core that a blocked loop uses at least; an idle process with its threads uses far less."""


class Suspicion:
    """`deadline` and `broken` end the sandbox; `loop` if it uses CPU while it is silent, `cpu` if it used too much."""

    def __init__(self, desk: Desk, meter: Meter, cpu: CpuHistory) -> None:
        self._desk = desk
        self._meter = meter
        self._cpu = cpu
        self._loop = asyncio.get_running_loop()
        self._looking: dict[str, asyncio.TimerHandle] = {}

    def raised(self, sandbox: Sandbox, suspect: Suspect) -> None:
        """A proxy suspects a living sandbox."""
        now = time.monotonic()
        if suspect.kind == "deadline":
            # Its probe has been unanswered for as long as it may be; the process lives, or its end had been seen.
            self._desk.end(sandbox, "blocked", _blocked(sandbox, suspect, "after a call's deadline"), now)
        elif suspect.kind == "broken":
            detail = suspect.detail or "its answers are not of the runtime's wire"
            self._desk.end(sandbox, "crash", f"crash: it broke the wire ({detail})", now)
        elif suspect.kind == "cpu":
            self._look_at_cpu(sandbox, suspect, now)
        elif sandbox.sandbox_id not in self._looking:
            found = self._meter.read(sandbox, now)
            if found is not None:
                timer = self._loop.call_later(_LOOK_FOR, self._look, sandbox, suspect, found.cpu_seconds, now)
                self._looking[sandbox.sandbox_id] = timer

    def _look_at_cpu(self, sandbox: Sandbox, suspect: Suspect, now: float) -> None:
        limit = sandbox.record.limits.cpu_seconds
        # Those of other workers may have been beside it, too.
        calls = max(suspect.calls, sandbox.calls_in_flight, 1)
        used = self._cpu.used(sandbox, suspect.silent_for, now)
        if limit and used > limit * calls:
            each = f" by {calls} calls" if calls > 1 else ""
            self._desk.end(sandbox, "cpu", f"cpu: {limit:g} CPU seconds a call reached, {used:.1f} used{each}", now)

    def close(self) -> None:
        """Forget what is being looked at."""
        for timer in self._looking.values():
            timer.cancel()
        self._looking.clear()

    def _look(self, sandbox: Sandbox, suspect: Suspect, cpu_seconds: float, since: float) -> None:
        del self._looking[sandbox.sandbox_id]
        if sandbox.phase not in {"assigned", "draining"}:
            return
        now = time.monotonic()
        found = self._meter.read(sandbox, now)
        if found is not None and found.cpu_seconds - cpu_seconds >= _BUSY * (now - since):
            self._desk.end(sandbox, "blocked", _blocked(sandbox, suspect, "while its CPU time grew"), now)


def _blocked(sandbox: Sandbox, suspect: Suspect, when: str) -> str:
    calls = sandbox.calls_in_flight
    return f"blocked: no answer for {suspect.silent_for:.1f} s {when}" + (
        f", {calls} calls in flight" if calls > 1 else ""
    )

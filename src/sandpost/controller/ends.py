"""From evidence outside to the one word of an end and its message."""

import os
import signal
from dataclasses import dataclass

from sandpost.model.ends import End
from sandpost.model.limits import Limits
from sandpost.model.units import show_size
from sandpost.model.wire import BLOCKED

_ABORTS = frozenset({signal.SIGABRT, signal.SIGTRAP, signal.SIGILL})
"""How V8 ends its process when it cannot get memory."""
_NEARLY = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known from outside about a sandbox that has ended."""

    limits: Limits
    ours: tuple[End, str] | None = None
    """Word and message, if we ended it ourselves."""
    oom_kills: int = 0
    """Processes of it that the kernel killed for want of memory."""
    parent_full: bool = False
    """The memory that was wanting was that of all sandboxes together, not the tenant's."""
    status: int | None = None
    """Wait status of its first process, which passes a signal n of the runtime on as exit code 128 + n."""
    peak_memory: int = 0
    """Most memory seen in use, bytes."""
    in_flight: int = 0
    share: bool = False
    """Its limits are one call's share of the tenant's."""


def judge(evidence: Evidence) -> tuple[End, str]:
    """Return the end's word and a message that says which limit and how much."""
    word, text = _cause(evidence)
    return word, text + _in_flight(evidence.in_flight)


def _cause(evidence: Evidence) -> tuple[End, str]:
    if evidence.ours is not None:
        return evidence.ours
    if evidence.oom_kills:
        if evidence.parent_full:
            return "platform", "platform: the memory of all sandboxes together was full"
        return _memory(evidence)
    if evidence.status is None:
        return "crash", "crash: the process is gone, its status is not known"
    number = signal_of(evidence.status)
    if number is None:
        code = os.waitstatus_to_exitcode(evidence.status)
        if code == BLOCKED:
            return "blocked", "blocked: a thread ran on, a second after its call's deadline"
        return "exit", f"exit: process ended with status {code}"
    if number in _ABORTS and evidence.peak_memory >= _NEARLY * evidence.limits.memory:
        return _memory(evidence)
    return "crash", f"crash: killed by signal {number}{_name(number)}"


def signal_of(status: int) -> int | None:
    """Return the signal that ended the runtime, read from its init's wait status; None if it exited."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return -code
    return code - 128 if 128 < code < 128 + signal.NSIG else None


def lowered(limits: Limits, *, share: bool) -> str:
    """Return the message of a sandbox that ends as `memory`, since it has more than its limit is now."""
    return f"{_memory(Evidence(limits=limits, share=share))[1]}, to which it was lowered"


def _memory(evidence: Evidence) -> tuple[End, str]:
    share = " (a call's share of `limits.memory`)" if evidence.share else ""
    return "memory", f"memory: {show_size(evidence.limits.memory)} reached{share}"


def _name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""


def _in_flight(calls: int) -> str:
    if not calls:
        return ""
    return ", 1 call in flight" if calls == 1 else f", {calls} calls in flight"

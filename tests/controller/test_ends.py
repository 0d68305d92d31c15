"""Ends are read from evidence outside."""

import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandpost import controller
from sandpost.controller.ends import Evidence, judge, signal_of
from sandpost.model.ends import ALL
from sandpost.model.limits import Limits, MiB

LIMITS = Limits(memory=128 * MiB)


@pytest.mark.parametrize(
    ("evidence", "word", "message"),
    [
        (Evidence(limits=LIMITS, oom_kills=1, in_flight=3), "memory", "memory: 128 MiB reached, 3 calls in flight"),
        (Evidence(limits=LIMITS, oom_kills=1, in_flight=1), "memory", "memory: 128 MiB reached, 1 call in flight"),
        (
            Evidence(limits=LIMITS, oom_kills=1, share=True),
            "memory",
            "memory: 128 MiB reached (a call's share of `limits.memory`)",
        ),
        (Evidence(limits=LIMITS, status=3 << 8), "exit", "exit: process ended with status 3"),
        # What the runtime of Python says as it ends itself.
        (
            Evidence(limits=LIMITS, status=86 << 8, in_flight=2),
            "blocked",
            "blocked: a thread ran on, a second after its call's deadline, 2 calls in flight",
        ),
        (Evidence(limits=LIMITS, status=0), "exit", "exit: process ended with status 0"),
        (Evidence(limits=LIMITS, status=(128 + 11) << 8), "crash", "crash: killed by signal 11 (SIGSEGV)"),
        (Evidence(limits=LIMITS, status=9), "crash", "crash: killed by signal 9 (SIGKILL)"),
        (Evidence(limits=LIMITS, status=(128 + 35) << 8), "crash", "crash: killed by signal 35"),
        (Evidence(limits=LIMITS, status=255 << 8), "exit", "exit: process ended with status 255"),
        (Evidence(limits=LIMITS), "crash", "crash: the process is gone, its status is not known"),
        # V8 aborts by itself when it cannot get memory.
        (Evidence(limits=LIMITS, status=134 << 8, peak_memory=127 * MiB), "memory", "memory: 128 MiB reached"),
        (
            Evidence(limits=LIMITS, status=134 << 8, peak_memory=30 * MiB),
            "crash",
            "crash: killed by signal 6 (SIGABRT)",
        ),
        # What we did ourselves stands above what it looks like.
        (
            Evidence(limits=LIMITS, ours=("blocked", "blocked: silent for 15 s"), status=9, in_flight=1),
            "blocked",
            "blocked: silent for 15 s, 1 call in flight",
        ),
        (
            Evidence(limits=LIMITS, oom_kills=1, parent_full=True, status=9),
            "platform",
            "platform: the memory of all sandboxes together was full",
        ),
    ],
)
def test_the_word_and_the_message(evidence: Evidence, word: str, message: str) -> None:
    assert judge(evidence) == (word, message)


@given(
    status=st.none() | st.integers(0, 0xFF).map(lambda code: code << 8) | st.integers(1, 64),
    oom_kills=st.integers(0, 2),
    peak=st.integers(0, 1 << 30),
)
def test_every_evidence_has_one_word_that_begins_its_message(status: int | None, oom_kills: int, peak: int) -> None:
    word, message = judge(Evidence(limits=LIMITS, status=status, oom_kills=oom_kills, peak_memory=peak))
    assert word in ALL
    assert message.startswith(f"{word}: ")
    if oom_kills:
        assert word == "memory"


@given(st.sampled_from(list(signal.Signals)))
def test_a_signal_passed_on_by_init_is_the_runtimes(number: signal.Signals) -> None:
    assert signal_of((128 + number) << 8) == signal_of(number) == number


def test_every_word_is_one_that_something_ends_by() -> None:
    """A word that nothing says is a promise that nobody keeps."""
    folder = Path(controller.__path__[0])
    said = "".join(path.read_text() for path in folder.glob("*.py"))
    assert [word for word in ALL if f'"{word}"' not in said] == []

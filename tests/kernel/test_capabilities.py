"""Capabilities that are given up are gone from every set, for this process and for what it runs."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from sandpost.kernel import capabilities

SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def held(text: str) -> dict[str, int]:
    return {line[:6]: int(line.split()[1], 16) for line in text.splitlines() if line.startswith("Cap")}


def after(work: Callable[[], object]) -> tuple[dict[str, int], dict[str, int]]:
    """Return what a process holds once it has done `work`, and what a program holds that it then runs."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            work()
            os.write(writer, Path("/proc/self/status").read_bytes() + b"\n--\n")
            os.write(writer, subprocess.run(["cat", "/proc/self/status"], capture_output=True, check=True).stdout)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        own, _, run = pipe.read().partition("\n--\n")
    os.waitpid(pid, 0)
    return held(own), held(run)


def test_all_are_given_up_in_every_set() -> None:
    before = held(Path("/proc/self/status").read_text())
    assert before["CapBnd"]
    for sets in after(capabilities.give_up_all):
        assert sets == dict.fromkeys(SETS, 0)


def test_some_are_given_up_and_the_others_stay() -> None:
    before = held(Path("/proc/self/status").read_text())
    gone = 1 << 16 | 1 << 40
    assert before["CapEff"] & gone == gone
    for sets in after(lambda: capabilities.give_up([16, 40])):
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert sets[name] == before[name] & ~gone


def test_without_the_right_to_it_the_bounding_set_stays() -> None:
    before = held(Path("/proc/self/status").read_text())

    def work() -> None:
        capabilities.give_up([8])
        capabilities.give_up_all()

    own, _ = after(work)
    assert own == {**dict.fromkeys(SETS, 0), "CapBnd": before["CapBnd"] & ~(1 << 8)}

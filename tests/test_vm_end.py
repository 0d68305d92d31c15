"""How a run of the emulated machine ends, with a program of the test's in the emulator's place."""

import os
from pathlib import Path

import pytest

from vm import machine
from vm.__main__ import of_one_that_lives
from vm.disks import Run, System

NOTHING = Path("/dev/null")
HUNG = "[  120.0] Kernel panic - not syncing: softlockup: hung tasks"
CRASHED = "[  120.0] Kernel panic - not syncing: sysrq triggered crash"


class Machines:
    """Machines that leave on their console and say what the lists have, one after another."""

    def __init__(self, folder: Path, *ends: tuple[str, str]) -> None:
        self._folder = folder
        self._ends = list(ends)
        self.heard: list[str] = []

    def boot(self) -> int | None:
        console, report = self._ends.pop(0)
        (self._folder / "console.log").write_text(console)
        emulator = self._folder / "qemu-system-x86_64"
        emulator.write_text(f"#!/bin/sh\necho '{report}'\n")
        emulator.chmod(0o755)
        run = Run(folder=self._folder, disk=NOTHING, swap=NOTHING)
        return machine.boot(System(NOTHING, NOTHING, NOTHING), run, self.heard.append, 20)


@pytest.fixture(autouse=True)
def _in_the_emulators_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.parametrize("status", [0, 1])
def test_what_the_tests_ended_with_is_the_machines_word(tmp_path: Path, status: int) -> None:
    machines = Machines(tmp_path, ("", f"sandpost-vm: ended with {status}"))
    assert of_one_that_lives(machines.boot) == status
    assert machines.heard == [f"sandpost-vm: ended with {status}"]


def test_a_kernel_that_hung_is_told_and_another_machine_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machines = Machines(tmp_path, (HUNG, "half way"), ("", "sandpost-vm: ended with 0"))
    assert of_one_that_lives(machines.boot) == 0
    assert machines.heard == ["half way", f"console: {HUNG}", "sandpost-vm: ended with 0"]
    assert "hung" in capsys.readouterr().out


def test_kernels_that_hang_again_and_again_are_a_failure(tmp_path: Path) -> None:
    machines = Machines(tmp_path, (HUNG, ""), (HUNG, ""), ("", "sandpost-vm: ended with 0"))
    assert of_one_that_lives(machines.boot) is None


@pytest.mark.parametrize("console", ["", CRASHED])
def test_an_end_without_a_word_is_a_failure_and_no_other_machine_is_tried(tmp_path: Path, console: str) -> None:
    # A kernel that crashes may well have been made to by what was tested.
    machines = Machines(tmp_path, (console, "half way"), ("", "sandpost-vm: ended with 0"))
    assert of_one_that_lives(machines.boot) is None


def test_a_word_counts_though_the_kernel_hung_behind_it(tmp_path: Path) -> None:
    machines = Machines(tmp_path, (HUNG, "sandpost-vm: ended with 1"))
    assert of_one_that_lives(machines.boot) == 1

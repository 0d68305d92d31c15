"""What `scripts/test-vm` lists by name is run there: no mark and no `-k` of the list leaves it out."""

import subprocess
import sys
from pathlib import Path

import pytest

from vm.__main__ import SHORT, listed

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("everything", [False, True])
def test_every_test_that_the_list_names_is_selected(everything: bool) -> None:
    # `tests/vm` is there in the machine alone.
    arguments = [one for one in listed(everything=everything) if one != "tests/vm"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", *SHORT, *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    selected = done.stdout.splitlines()
    for one in arguments:
        if "::" in one:
            assert any(name == one or name.startswith(f"{one}[") for name in selected), one
        elif one.startswith("tests/"):
            assert any(name.startswith(one) for name in selected), one

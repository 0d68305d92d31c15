"""gVisor for tests: the project's own script installs it, once a machine."""

import subprocess
from functools import cache
from pathlib import Path

import pytest

from sandpost.config.machine import built_runsc

ROOT = Path(__file__).parents[2]
RUNSC = built_runsc()


@cache
def runsc() -> str:
    """Return the path of the runsc that `scripts/install --gvisor` has made; without one the test fails."""
    done = subprocess.run(
        [ROOT / "scripts" / "install", "--dev", "--gvisor"], check=False, capture_output=True, text=True
    )
    if done.returncode != 0 or not Path(RUNSC).exists():
        pytest.fail(f"there is no runsc, and `scripts/install --gvisor` did not make one: {done.stderr[-2000:]}")
    return RUNSC

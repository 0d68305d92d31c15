"""The real command line, each time in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable

from support.installation import Installation

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def runner(made: Installation) -> Run:
    """Return a function that runs `sandpost ARGUMENTS` on the machine of `made`; keywords are its environment."""

    def run(*arguments: str, stdin: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SANDPOST_")}
        return subprocess.run(
            [sys.executable, "-m", "sandpost", *arguments],
            env={
                **clean,
                "SANDPOST_RUN_DIR": os.path.dirname(made.host.run_dir),
                "SANDPOST_STATE_DIR": made.host.state_dir,
                "NO_COLOR": "1",
                **environment,
            },
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run

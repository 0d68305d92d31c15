"""The real command line, each time in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Callable

from support.installation import Installation

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def as_nobody() -> None:
    """Become a user without rights, in a child: whatever closes the way to the program is opened for him."""
    from sandpost.config.program import program_folders
    from sandpost.supervisor import reach

    reach.open_way(reach.closed_above(program_folders()))
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)


def runner(made: Installation) -> Run:
    """Return a function that runs `sandpost ARGUMENTS` on the machine of `made`; keywords are its environment.

    `nobody`: as a user without rights.
    """

    def run(
        *arguments: str, stdin: str = "", nobody: bool = False, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
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
            preexec_fn=as_nobody if nobody else None,
        )

    return run

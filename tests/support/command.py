"""The real command line, each time in a process of its own."""

import functools
import os
import stat
import subprocess
import sys
from collections.abc import Callable

from sandpost.kernel.program import program_folders
from sandpost.supervisor import reach
from sandpost.supervisor.reach import Reach
from sandpost.walls.own.needs import SYSTEM
from support.installation import Installation

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def what_everybody_sees() -> Reach:
    """Return the files that any user of this machine sees, and the program wherever it lies.

    Nothing of /tmp: what tests beside this one make there may be gone at the next moment.
    """
    shown = {
        entry.path
        for entry in os.scandir("/")
        if entry.is_file() or (entry.is_dir() and entry.stat().st_mode & stat.S_IXOTH)
    } - {"/dev", "/tmp"}
    return Reach((sys.executable, *program_folders(), *shown, *SYSTEM), ())


def as_nobody(*paths: str) -> None:
    """Become a user without rights, in a child, who sees `paths` too."""
    everybody = what_everybody_sees()
    reach.confine(Reach((*everybody.read, *paths), ()))
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
            preexec_fn=functools.partial(as_nobody, made.root) if nobody else None,
        )

    return run

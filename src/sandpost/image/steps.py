"""Steps of a build: what each has to work with, and a program that is run, bounded, and leaves nothing behind."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandpost.image.recipe import EPOCH
from sandpost.model.errors import HostUnfit

_DEADLINE = 900.0
_GONE = 10.0
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--kill-child", "--")
"""What runs a program with process numbers of its own: when the first of them ends, the kernel ends all, whatever group
or session they made; and the first ends with this process, also when nobody can tell it to.
"""


@dataclass(frozen=True, slots=True)
class Site:
    """What the build of a layer has to work with."""

    suite: str
    """The name of the Debian."""
    scratch: str
    """An empty folder, removed after the build."""
    cache: str
    """A folder that keeps archives from one build to the next."""
    hold: int
    """The descriptor of the lock under which is built."""
    progress: Callable[[str], None]
    """Told what is done now."""


def run(command: Sequence[str], purpose: str, scratch: str, hold: int = -1) -> str:
    """Run a step, of which nothing outlives its end or ours; return what it printed.

    `hold` is a descriptor that the step inherits: the lock, which so outlives a kill of this process.
    Raises `HostUnfit` with what to do.
    """
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "LC_ALL": "C.UTF-8", "TMPDIR": scratch}
    environment["PYTHONHASHSEED"] = "0"
    if shutil.which(command[0]) is None:
        raise HostUnfit(f"`{command[0]}` is missing: run `apt-get install {command[0]}`")
    with subprocess.Popen(
        [*_ENDS_WITH_US, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        process_group=0,
        pass_fds=(hold,) if hold >= 0 else (),
    ) as child:
        try:
            output, errors = child.communicate(timeout=_DEADLINE)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            # To the end of what they print, which is the end of the last of them: their files are removed next.
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.communicate(timeout=_GONE)
            if isinstance(error, subprocess.TimeoutExpired):
                raise HostUnfit(f"could not {purpose} within {_DEADLINE:.0f} s: look at the network") from None
            raise
    if child.returncode != 0:
        last = " | ".join(errors.strip().splitlines()[-3:])
        raise HostUnfit(f"could not {purpose}: `{command[0]}` ended with {child.returncode}: {last}")
    return output

"""runc: programs call the host's kernel, behind namespaces, control groups and a filter of calls."""

import os
import shutil
from typing import Any

from sandpost.engines.driver import Command, Launch
from sandpost.engines.sealed import Sealed
from sandpost.model.engines import HOW_TO_GET
from sandpost.model.errors import EngineError
from sandpost.model.host import Host
from sandpost.model.limits import EngineName, Limits


class Runc:
    """See `driver.Driver`."""

    name: EngineName = "runc"

    def __init__(self, host: Host) -> None:
        self._program = host.command("runc")
        self._states = host.path("runc")
        self._sealed = Sealed(self._program)

    def open(self) -> None:
        if not os.access(self._program, os.X_OK):
            raise EngineError(f"there is no {self._program or 'runc'}: {HOW_TO_GET['runc']}")
        os.makedirs(self._states, mode=0o700, exist_ok=True)

    def take_up(self, host: Host) -> None:
        """Change nothing: an installation keeps its runc."""

    def adapt(self, config: dict[str, Any], limits: Limits) -> None:
        """Change nothing."""

    def command(self, launch: Launch) -> Command:
        log, pid_file = os.path.join(launch.bundle, "runtime.log"), os.path.join(launch.bundle, "pid")
        words = [self._program, "--root", self._states, "--log", log, "--log-format", "json"]
        words += ["run", "--detach", "--pid-file", pid_file, "--bundle", launch.bundle]
        words += ["--preserve-fds", "2" if launch.ready else "1", launch.sandbox_id]
        return Command(words=words, program=self._sealed.program())

    def forget(self, sandbox_id: str) -> None:
        # `runc delete` would do the same three things (groups, state, hooks that we have none of), in 9 ms.
        shutil.rmtree(os.path.join(self._states, sandbox_id), ignore_errors=True)

    def close(self, *, purge: bool) -> None:
        if purge:
            shutil.rmtree(self._states, ignore_errors=True)
        self._sealed.close()

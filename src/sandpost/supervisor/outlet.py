"""Where people's words and log lines go: apart from each other, wherever a person reads."""

import os
import shutil

MOST = 16 << 20
"""Bytes of `serve.log` before it becomes `serve.log.1`."""


class Outlet:
    """What people read, and where the log lines of all processes go (`log`, a descriptor).

    Without a `log_path` the log goes to stderr (a service manager's, a pipe's). With one it goes to that file: under
    --detach, where people's words follow it once all is ready, and on a terminal, which keeps to words.
    """

    def __init__(self, log_path: str | None) -> None:
        self.path = log_path
        self._out, self._err = 1, 2
        self.log = 2
        if log_path is not None:
            self._out, self._err = os.dup(1), os.dup(2)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self.log = os.open(log_path, flags, 0o600)
            # The standard library's and our own log lines go to descriptor 2.
            os.dup2(self.log, 2)

    def say(self, text: str) -> None:
        """Tell people."""
        _write(self._out, text)

    def complain(self, text: str) -> None:
        """Tell people what is wrong."""
        _write(self._err, text)

    def leave(self) -> None:
        """Let go of the terminal; from now on words go to the log."""
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(self.log, 1)
        os.close(self._out)
        os.close(self._err)
        self._out = self._err = self.log

    def trim(self) -> None:
        """Keep the log file bounded; a line written at this very moment may be lost."""
        if self.path is not None and os.fstat(self.log).st_size > MOST:
            # Copied and cut, not renamed: every process has it open for appending.
            shutil.copyfile(self.path, f"{self.path}.1")
            os.chmod(f"{self.path}.1", 0o600)
            os.ftruncate(self.log, 0)


def _write(fd: int, text: str) -> None:
    try:
        os.write(fd, text.encode() + b"\n")
    except OSError:
        # A terminal that is gone costs the words, not the installation.
        return

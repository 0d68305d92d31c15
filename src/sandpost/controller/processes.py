"""Processes of others, and when they end."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable


class Watch:
    """Calls `on_end` once when a process has ended. Raises `ProcessLookupError` if it has already."""

    def __init__(self, pid: int, on_end: Callable[[], None]) -> None:
        self._fd = os.pidfd_open(pid)
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._ended)

    def kill(self) -> None:
        """Kill it at once; with the first process of a sandbox all others of it die."""
        if self._fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    def ask(self, on_end: Callable[[], None]) -> None:
        """Ask it to end by SIGTERM, which an init passes on; from now on `on_end` is called when it has, or had."""
        self._on_end = on_end
        # Removed before if it has ended.
        self._loop.add_reader(self._fd, self._ended)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, signal.SIGTERM)

    def status(self) -> int | None:
        """Return the wait status, if it has ended as a child of ours."""
        if self._fd < 0:
            return None
        try:
            found = os.waitid(os.P_PIDFD, self._fd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return None
        if found is None:
            return None
        return found.si_status << 8 if found.si_code == os.CLD_EXITED else found.si_status

    def close(self) -> None:
        """Stop watching."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _ended(self) -> None:
        self._loop.remove_reader(self._fd)
        self._on_end()

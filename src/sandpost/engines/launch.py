"""Runs the OCI runtime's command for one sandbox, with exactly the descriptors that the sandbox gets."""

import contextlib
import fcntl
import json
import os
import select
import signal
from collections.abc import Sequence

from sandpost.kernel import pids
from sandpost.kernel.descriptors import close_all
from sandpost.model.errors import EngineError

READY = 4
"""The number under which a runtime gets the pipe that it writes to when it listens."""
_LOCK = 63
"""The number under which the runtime, not the sandbox, inherits the lock; above those that its own children get."""
_HIGH = _LOCK + 1
"""Below it are the numbers that a child's descriptors get; ours are copied above before any is overwritten: a copy
in the lock's place would hand the lock, a folder of the host, to the sandbox under another number."""
_SIGNALS = (
    signal.SIGPIPE,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGXFSZ,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_COMPLAINT = 1000
"""Letters of the runtime's errors that are passed on."""
_DECODER = json.JSONDecoder()
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


def run(
    command: Sequence[str],
    *,
    program: str | None = None,
    stdout: int,
    stderr: int,
    frames: int,
    ready: int | None,
    lock: int,
    patience: float,
) -> int | None:
    """Run `command` with these descriptors and no others; return its exit code, None if it was killed as too slow.

    `program` is the file to run if it is not the first word. Blocks. The caller keeps its descriptors; `frames` that
    did not block its writer does not afterwards.
    """
    copies: dict[int, int] = {}
    frames_block = os.get_blocking(frames)
    try:
        wanted = {1: stdout, 2: stderr, 3: frames, _LOCK: lock}
        if ready is not None:
            wanted[READY] = ready
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for number, fd in ({0: null} | wanted).items():
                copies[number] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        finally:
            os.close(null)
        pid = os.posix_spawn(
            program or command[0],
            list(command),
            _ENVIRONMENT,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in copies.items()],
            # Python ignores SIGPIPE, and what is ignored stays so in every program of the sandbox.
            setsigdef=_SIGNALS,
            setsigmask=(),
            setsid=True,
        )
    except BlockingIOError as error:
        raise EngineError(f"cannot start {command[0]}: {pids.refused()}") from error
    except OSError as error:
        raise EngineError(
            f"cannot start {command[0]}: {error.strerror}: check the settings `oci.runtime` and `oci.runsc`"
        ) from error
    finally:
        close_all(copies.values())
    try:
        return _wait(pid, patience)
    finally:
        # runc that an older Go has built (Debian's 1.1.5) makes what it hands on block its writer, and the open file is
        # ours as well. No program of a tenant's runs yet, and before one does nothing fills the FIFO.
        if not frames_block:
            os.set_blocking(frames, False)


def complaint(log: str) -> str:
    """Return the errors that the OCI runtime wrote to its log of JSON objects, or that it wrote none.

    runc ends each by a line break. runsc does not, and says the cause first and then what failed for it.
    """
    said: list[str] = []
    with contextlib.suppress(OSError), open(log, encoding="utf-8", errors="replace") as file:
        text, at = file.read().strip(), 0
        with contextlib.suppress(ValueError):
            while at < len(text):
                entry, at = _DECODER.raw_decode(text, at)
                if entry.get("level") in {"error", "fatal"}:
                    said.append(str(entry.get("msg", "")))
                at += len(text[at:]) - len(text[at:].lstrip())
    return "; ".join(said)[:_COMPLAINT] or "it left no message"


def is_first(pid: int) -> bool:
    """Whether the process is the first of its pid namespace."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return line.split()[-1] == "1"
    except (FileNotFoundError, ProcessLookupError):
        return False
    return False


def kill_launchers(bundle: str) -> None:
    """Kill the OCI runtimes that work in a bundle, found by their arguments: for those of a process that is gone."""
    wanted = os.fsencode(bundle)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fd = os.pidfd_open(int(name))
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    if wanted in file.read().split(b"\0"):
                        signal.pidfd_send_signal(fd, signal.SIGKILL)
            finally:
                os.close(fd)


def _wait(pid: int, patience: float) -> int | None:
    fd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        in_time = bool(poll.poll(patience * 1000))
        if not in_time:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    finally:
        os.close(fd)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if in_time else None

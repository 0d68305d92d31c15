"""Starts a part as a process of its own: its user, its descriptors, a clean environment, and nothing else of ours."""

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from sandpost.kernel import calls, capabilities, descriptors, pids
from sandpost.kernel.program import program_folders
from sandpost.model.host import Host
from sandpost.model.messages import Part
from sandpost.supervisor import reach
from sandpost.supervisor.reach import Reach
from sandpost.walls.own import needs

LISTENER_FD = 3
"""Where a part finds its first listening socket; others follow."""
OOM_SCORE = -900
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """How a process is started. `output` becomes its stderr, and its stdout unless `stdout` does; `listeners` become
    its descriptors from 3 on.
    """

    command: Sequence[str]
    uid: int
    gid: int
    output: int
    stdout: int | None = None
    listeners: Sequence[int] = ()
    reach: Reach | None = None
    """All that it sees of the files; None: everything, as root."""


def part_command(part: Part, index: int, host_file: str) -> list[str]:
    """Return the command line of a part; `ps` shows `sandpost PART` in it."""
    # -I: neither the working folder nor PYTHON* of whoever started us decides what a root process imports.
    command = [sys.executable, "-I", "-m", "sandpost", part, "--host", host_file]
    return [*command, "--index", str(index)] if part == "proxy" else command


def user_of(part: Part, host: Host) -> tuple[int, int]:
    """Return uid and gid of a part."""
    if part in {"supervisor", "controller", "cli"}:
        return 0, 0
    users = host.users
    uids = {"proxy": users.proxy, "api": users.api, "collector": users.collector, "egress": users.egress}
    return uids[part], users.gid


def reach_of(part: Part, host: Host) -> Reach | None:
    """Return what a part sees of the files; None, everything, for those of root's."""
    if user_of(part, host)[0] == 0:
        return None
    # The program by its name too: links may lead to it through folders that nothing else needs.
    wanted = needs.of(part, host, [sys.executable, *program_folders()])
    return Reach(wanted.read, wanted.write)


class Newborn:
    """A process that was forked and waits for our word to become the part; without us it ends."""

    def __init__(self, birth: Birth) -> None:
        """Fork it; `OSError` if it cannot be.

        fork and exec by hand: subprocess.Popen can neither place a descriptor at a number of our choice nor act
        between root and the part's user, nor wait in between. The caller has one thread.
        """
        self._birth = birth
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        gate, self._gate = os.pipe2(os.O_CLOEXEC)
        try:
            self.pid = os.fork()
        except BlockingIOError as error:
            descriptors.close_all([self._reader, writer, gate, self._gate])
            raise OSError(f"cannot start {' '.join(birth.command)}: {pids.refused()}") from error
        if self.pid == 0:
            os.close(self._gate)
            _become(birth, writer, gate)
        descriptors.close_all([writer, gate])

    def go(self) -> None:
        """Let it go on: whoever is to know of it does. `OSError` if it cannot become the part; it is reaped then."""
        # One that was killed meanwhile is found when it is reaped.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._gate, b"1")
        os.close(self._gate)
        with open(self._reader, "rb") as pipe:
            failure = pipe.read(4096)
        if failure:
            os.waitpid(self.pid, 0)
            raise OSError(failure.decode(errors="replace"))


def leave_root(uid: int, gid: int, seen: Reach | None) -> None:
    """Become a user without capabilities, groups or a way back, who sees of the files what `seen` says.

    `OSError` if the kernel refuses. One thread; everything that is imported from here on is read through `seen`.
    """
    if seen is not None:
        reach.confine(seen)
    # While there is the capability that it takes.
    capabilities.close_bounding_set()
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    capabilities.give_up_all()
    calls.forbid_new_privileges()


def go_last_when_memory_runs_out() -> None:
    """Lower this process's score; `OSError` without CAP_SYS_RESOURCE, which preflight tells. No wall depends on it."""
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write(str(OOM_SCORE))


def _become(birth: Birth, writer: int, gate: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        # Nothing comes if the supervisor was killed: its successor would not know of us.
        if not os.read(gate, 1):
            os._exit(127)
        os.setsid()
        os.umask(0o022)
        os.chdir("/")
        writer = _arrange(birth, writer)
        with contextlib.suppress(OSError):
            go_last_when_memory_runs_out()
        descriptors.allow_most()
        if birth.uid != os.getuid():
            leave_root(birth.uid, birth.gid, birth.reach)
        environment = {"PATH": _PATH, "LANG": "C.UTF-8", "HOME": "/"}
        if "TZ" in os.environ:
            environment["TZ"] = os.environ["TZ"]
        os.execve(birth.command[0], list(birth.command), environment)  # noqa: S606  (our own argument vector)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(writer, f"cannot start {' '.join(birth.command)}: {error}".encode())
    finally:
        os._exit(127)


def _arrange(birth: Birth, writer: int) -> int:
    """Put descriptors where the part expects them and close all others; return where `writer` is now."""
    stdout = birth.output if birth.stdout is None else birth.stdout
    kept = [os.open("/dev/null", os.O_RDONLY), stdout, birth.output, *birth.listeners]
    # First out of the way of one another, then to their places, `writer` behind them.
    base = len(kept) + 1 + max(*kept, writer)
    for offset, fd in enumerate((*kept, writer)):
        os.dup2(fd, base + offset, inheritable=False)
    for place in range(len(kept)):
        os.dup2(base + place, place, inheritable=True)
    writer = len(kept)
    os.dup2(base + writer, writer, inheritable=False)
    os.closerange(writer + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return writer

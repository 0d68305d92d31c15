"""gVisor's runsc: programs call the sentry, a kernel of its own in Go, and never the host's.

Two processes a sandbox: the sentry, which is its first one, and a gofer that opens the root's files for it; besides
them the programs' own, stubs in which the sentry runs them (platform systrap). Both belong to the sandbox's user
range, as its user 0, and stand in its group. What is said of runsc here was read in its source and tried.

After the start nothing of runsc is run by root any more: no `kill`, `wait` or `delete` reads what a sentry says
that hostile code may have taken over.
"""

import contextlib
import os
import threading
from typing import Any

from sandpost.engines.driver import Command, Launch
from sandpost.image import tree, use
from sandpost.model.engines import HOW_TO_GET
from sandpost.model.errors import EngineError
from sandpost.model.host import Host
from sandpost.model.limits import EngineName, Limits
from sandpost.network import namespaces
from sandpost.walls.oci_config import OOM_SCORE, tmp_options

_FLAGS = (
    "--platform=systrap",
    # Its own network stack over the veth pair, which takes address, route and neighbour from the namespace.
    "--network=sandbox",
    # The root is read-only and shared; without this it would get a writable layer over it.
    "--overlay2=none",
    # It would write to the machine's own groups (v2) and enter every hierarchy (v1); we are in the group already.
    "--ignore-cgroups",
)
_ENTER = (
    '/bin/mount -t tmpfs -o ro,size=4k sandpost /mnt && cd "$1"'
    ' && /bin/mount -t overlay -o ro,lowerdir=.:/mnt "$2" . && cd "$3"'
    " && /bin/mount -t overlay -o ro,lowerdir=.:/mnt sandpost-modules . && cd /"
    ' && /bin/mount -t tmpfs -o "$4" sandpost /mnt || exit 125; shift 4;'
    ' echo "$1" >/proc/self/oom_score_adj || exit 125; shift;'
    ' while [ "$1" != -- ]; do echo 0 >"$1" || exit 125; shift; done; shift; exec "$@"'
)
"""In mounts of its own: puts an overlay of layers over the root and one over the modules, makes the sandbox's /tmp,
takes a badness (proc(5)), enters control groups, then becomes the rest of its arguments: all that runsc starts has
these from its first instruction.

A sentry passes on a program's fsync(2) to the file that its gofer opened, and the host's disk flushes (seen: each of
them). An overlay that has no layer to write to, which takes two below, passes none on; it shares the files' pages.

Modules come and go below theirs. Where only one of its layers has a folder, as below `npm` and `pypi`, what is listed
is what is there now. But for this sandbox a name stays what it was when somebody looked for it: nothing, if it was not
there, and a folder that was removed stays that one. So runtimes list, and no folder goes that gets new versions.

A /tmp of the sentry's own would count no inodes, since runsc leaves that option out, and show nothing of itself
outside. One of the host's does both. It lies in the group's memory all the same: whoever writes is charged.

By itself runsc gives a badness to the sentry alone, whose size says nothing of its program's: where all sandboxes
together were full, the kernel took the wrong one (seen)."""
_TMP = "/mnt"
"""Where in those mounts the sandbox's /tmp lies."""
_SOCKET_PATH = 107
"""Bytes that the path of a unix socket can have (unix(7))."""


class Runsc:
    """See `driver.Driver`."""

    name: EngineName = "runsc"

    def __init__(self, host: Host) -> None:
        self._program = host.command("runsc")
        self._states = host.path("runsc")
        self._shown = [host.rootfs, use.overlay_source(host.image), host.modules_ready]
        self._lock = threading.Lock()
        self._gofers = -1

    def open(self) -> None:
        with self._lock:
            if not os.access(self._program, os.X_OK):
                raise EngineError(f"there is no {self._program or 'runsc'}: {HOW_TO_GET['runsc']}")
            if self._gofers >= 0:
                return
            if len(os.fsencode(self._socket("0" * 12))) > _SOCKET_PATH:
                # It would put its socket into /var/run, /run or /tmp instead.
                raise EngineError(
                    f"the path {self._states} is too long for runsc's sockets: choose a shorter `run_dir`"
                )
            os.makedirs(self._states, mode=0o700, exist_ok=True)
            # Else the first sandbox is charged for the program's pages.
            tree.touch_pages(self._program)
            # Left to itself runsc would make one and keep it by a mount.
            self._gofers = namespaces.make_empty()

    def take_up(self, host: Host) -> None:
        self._program = host.command("runsc")

    def adapt(self, config: dict[str, Any], limits: Limits) -> None:
        # The sentry counts the program's processes and threads; the host's group sees its own threads besides.
        for limit in config["process"]["rlimits"]:
            if limit["type"] == "RLIMIT_NPROC":
                limit["soft"] = limit["hard"] = limits.pids
        for mount in config["mounts"]:
            if mount["destination"] == "/tmp":  # noqa: S108 - the sandbox's own
                mount.update(type="bind", source=_TMP, options=["bind", "nosuid", "nodev"])

    def command(self, launch: Launch) -> Command:
        log, pid_file = os.path.join(launch.bundle, "runtime.log"), os.path.join(launch.bundle, "pid")
        words = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", _ENTER, "sandpost-enter"]
        owner = launch.identity.root
        tmp = ["nosuid", "nodev", *tmp_options(launch.limits), f"uid={owner}", f"gid={owner}"]
        words += [*self._shown, ",".join(tmp), str(OOM_SCORE), *launch.entries, "--"]
        words += [self._program, "--root", self._states, "--log", log, "--log-format", "json", *_FLAGS]
        words += [f"--gofer-network-namespace=/proc/{os.getpid()}/fd/{self._gofers}"]
        words += ["run", "--detach", "--pid-file", pid_file, "--bundle", launch.bundle, "--pass-fd", "3:3"]
        words += ["--pass-fd", "4:4"] if launch.ready else []
        return Command(words=[*words, launch.sandbox_id])

    def forget(self, sandbox_id: str) -> None:
        container = os.path.join(self._states, f"{sandbox_id}_sandbox:{sandbox_id}")
        for path in (f"{container}.state", f"{container}.lock", self._socket(sandbox_id)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def close(self, *, purge: bool) -> None:
        if self._gofers >= 0:
            os.close(self._gofers)
            self._gofers = -1
        if purge:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(self._states)

    def _socket(self, sandbox_id: str) -> str:
        return os.path.join(self._states, f"runsc-{sandbox_id}.sock")

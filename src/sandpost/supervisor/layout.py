"""The folders of an installation and whose they are; the state folder's lock.

Every folder belongs to the one part that writes it. When an installation gets another place on the machine its users
change, and with them the owners of what is in the state folder.
"""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator

from sandpost.config import machine, preflight
from sandpost.kernel import calls
from sandpost.kernel.files import folder
from sandpost.model.errors import AlreadyRunning, HostUnfit
from sandpost.model.host import Host
from sandpost.walls import modules

_PROBE = bytes(65536)
_RUN_SIZE = 1 << 29
"""Bytes that a run folder in memory may grow to; a sandbox takes some 50 KiB of it."""


def lock_state(state_dir: str) -> int:
    """Make the state folder if need be, prove that it is ours and can be written, and lock it.

    The lock lives as long as the descriptor returned. Raises `AlreadyRunning`, or `HostUnfit` with what to do.
    """
    with _told(state_dir):
        os.makedirs(state_dir, mode=0o711, exist_ok=True)
        if problem := preflight.state_problem(machine.state_folder(state_dir)):
            raise HostUnfit(problem)
        os.chmod(state_dir, 0o711)  # noqa: S103  (parts pass through it to their own folders)
        fd = os.open(os.path.join(state_dir, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise AlreadyRunning(
            f"Sandpost is running already on {state_dir}: `sandpost status` shows it, `sandpost stop` ends it"
        ) from None
    try:
        with _told(state_dir):
            if os.fstat(fd).st_size == 0:
                os.write(fd, machine.STATE_MARK)
            _probe(state_dir)
    except HostUnfit:
        os.close(fd)
        raise
    return fd


def make_folders(host: Host) -> None:
    """Make every folder of the installation, with its owner and mode. Idempotent."""
    users = host.users
    with _told(host.run_dir):
        for name in ("records", "bundles", "fifos"):
            folder(host.path(name), 0o700, 0, 0)
        for name in ("metrics", "tables"):
            folder(host.path(name), 0o770, 0, users.gid)
        folder(host.path("api"), 0o750, users.api, users.gid)
        folder(host.spool_dir, 0o700, users.collector, users.gid)
    with _told(host.state_dir):
        for path, mode, owner in (
            (host.state("store"), 0o750, users.api),
            (host.code_dir, 0o700, users.proxy),
            (host.logs_dir, 0o750, users.collector),
            # Root mounts what is in it: its owner could put a link there.
            (host.modules_dir, 0o755, 0),
            # Sandboxes' users read it, by that mount.
            (host.modules_ready, 0o755, users.api),
        ):
            _hand_over(path, owner, users.gid)
            folder(path, mode, owner, users.gid)
        modules.ensure(host)


def make_run_dir(run_dir: str) -> None:
    """Make the run folder, in memory wherever it is: on Debian `/run` is a tmpfs, in many containers a disk.

    A disk's file system searches long for a free inode where many were freed a moment ago (ext4 for five seconds),
    which costs a sandbox a tenth of its start. Raises `HostUnfit` if a tmpfs is needed and cannot be had.
    """
    os.makedirs(run_dir, exist_ok=True)
    os.chmod(run_dir, 0o755)  # noqa: S103  (the parts of other users pass through it)
    if not _in_memory(run_dir):
        try:
            calls.mount_tmpfs(run_dir, _RUN_SIZE)
        except OSError as error:
            raise HostUnfit(
                f"{run_dir} is on a disk and no tmpfs can be mounted there ({error.strerror}): run as root with "
                "CAP_SYS_ADMIN, or set run_dir to a folder on a tmpfs"
            ) from None


def remove_run_dir(run_dir: str) -> None:
    """Remove the run folder with all that is in it; `HostUnfit` if something is still mounted below it."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mounts = [line.split(" ")[1] for line in file]
    if below := [path for path in mounts if path.startswith(f"{run_dir}/")]:
        raise HostUnfit(f"{below[0]} is still mounted: `umount` it, then remove {run_dir}")
    if run_dir in mounts:
        calls.unmount(run_dir)
    shutil.rmtree(run_dir)


def _in_memory(path: str) -> bool:
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            mount, _, kind = line.partition(" - ")
            if mount.split(" ")[2] == wanted:
                return kind.startswith(("tmpfs ", "ramfs "))
    return False


def _probe(state_dir: str) -> None:
    path = os.path.join(state_dir, f"lock.{os.getpid()}")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, _PROBE) < len(_PROBE):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Turn what the kernel says into what to do."""
    try:
        yield
    except OSError as error:
        what = {
            errno.EROFS: "is on a read-only file system: remount it, or set state_dir to another folder",
            errno.ENOSPC: "is full: make room, or set state_dir to another folder",
            errno.EDQUOT: "is over its quota: make room, or set state_dir to another folder",
            errno.EACCES: "may not be written, not even by root: set state_dir to another folder",
            errno.EPERM: "may not be written, not even by root: set state_dir to another folder",
            errno.ENOTDIR: "is not a folder, or lies below a file: set state_dir to a folder",
            errno.EEXIST: "is not a folder: set state_dir to a folder of Sandpost's own",
        }.get(error.errno or 0, f"cannot be used ({error.strerror or error})")
        raise HostUnfit(f"{path} {what}") from None


def _hand_over(path: str, uid: int, gid: int) -> None:
    """Give everything in `path` to another user if it belongs to an earlier one; follows no link."""
    try:
        if (os.lstat(path).st_uid, os.lstat(path).st_gid) == (uid, gid):
            return
    except FileNotFoundError:
        return
    for _, folders, plain, fd in os.fwalk(path, follow_symlinks=False):
        for name in folders + plain:
            os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)

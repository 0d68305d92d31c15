"""One machine holds sixteen installations; each claims its place by a folder under the run root.

    <run root>/.lock          held while somebody looks and claims
    <run root>/<k>/claim      the state folder that owns place k, one hexadecimal digit

The same state folder gets its place again. A place is reclaimed only if its state folder is gone and nothing that
carries its name is left on the machine.
"""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator

from sandpost.kernel import files
from sandpost.model.errors import HostUnfit
from sandpost.model.host import INSTANCES

_WAIT = 10.0


def plain_folder(path: str) -> None:
    """Make a place's folder where nothing else is said."""
    os.makedirs(path, exist_ok=True)


def claim(
    run_root: str,
    state_dir: str,
    wanted: int | None,
    in_use: Callable[[int], bool],
    make: Callable[[str], None] = plain_folder,
) -> int:
    """Return the place of the installation `state_dir`, claimed now if it had none. Its folder is there afterwards.

    `in_use(k)` says whether anything on the machine carries place k's name (processes, cgroups, interfaces); `make`
    makes the folder, under the lock.
    Raises `HostUnfit` if every place is taken, or `wanted` is another's.
    """
    state_dir = os.path.realpath(state_dir)
    _make_root(run_root)
    with _locked(run_root):
        owners = {k: _owner(run_root, k) for k in range(INSTANCES)}
        for k, owner in owners.items():
            if owner == state_dir:
                if wanted not in {None, k}:
                    raise HostUnfit(f"{state_dir} holds instance {k}: `sandpost stop` it before it becomes {wanted}")
                return k
        if wanted is not None and owners[wanted] not in {None, ""} and not _stale(owners[wanted], wanted, in_use):
            raise HostUnfit(f"instance {wanted} belongs to {owners[wanted]}: choose another, or leave it to `auto`")
        order = range(INSTANCES) if wanted is None else (wanted,)
        # Free ones before stale ones: what was somebody's is touched last.
        for stale in (False, True):
            for k in order:
                free = not owners[k] and not in_use(k)
                if free or (stale and _stale(owners[k], k, in_use)):
                    _take(run_root, k, state_dir, make)
                    return k
    if wanted is not None:
        raise HostUnfit(f"instance {wanted} is in use by something that has no claim: look for sandpost-{wanted:x}")
    taken = ", ".join(sorted(owner for owner in owners.values() if owner))
    raise HostUnfit(f"all {INSTANCES} places of this machine are taken: stop one of {taken}")


def find(run_root: str, state_dir: str) -> int | None:
    """Return the place that `state_dir` holds, if any."""
    state_dir = os.path.realpath(state_dir)
    for k in range(INSTANCES):
        if _owner(run_root, k) == state_dir:
            return k
    return None


def folder(run_root: str, k: int) -> str:
    """Return the run folder of place `k`."""
    return os.path.join(run_root, f"{k:x}")


def release(run_root: str, k: int, state_dir: str, remove: Callable[[str], None]) -> None:
    """Give place `k` back: `remove` clears its folder, under the lock. Another's is left alone."""
    with _locked(run_root):
        if _owner(run_root, k) == os.path.realpath(state_dir):
            remove(folder(run_root, k))


def _stale(owner: str | None, k: int, in_use: Callable[[int], bool]) -> bool:
    return bool(owner) and not os.path.lexists(owner or "") and not in_use(k)


def _owner(run_root: str, k: int) -> str | None:
    """Return the state folder that holds `k`; "" for a folder without a claim (a start that was killed), else None."""
    place = folder(run_root, k)
    try:
        with open(os.path.join(place, "claim"), encoding="utf-8") as file:
            return file.read(4096)
    except FileNotFoundError:
        return "" if os.path.lexists(place) else None


def _take(run_root: str, k: int, state_dir: str, make: Callable[[str], None]) -> None:
    place = folder(run_root, k)
    make(place)
    files.replace(os.path.join(place, "claim"), state_dir.encode(), 0o644)


def _make_root(run_root: str) -> None:
    try:
        os.makedirs(run_root, mode=0o755, exist_ok=True)
        found = os.lstat(run_root)
    except OSError as error:
        raise HostUnfit(f"cannot make {run_root}: {error.strerror}: run as root, or set run_dir") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise HostUnfit(f"{run_root} must be a folder that belongs to root and that others cannot write: mend it")


@contextlib.contextmanager
def _locked(run_root: str) -> Iterator[None]:
    fd = os.open(os.path.join(run_root, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _WAIT
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    message = f"another start holds {run_root}/.lock for over {_WAIT:g} s: try again when it is through"
                    raise HostUnfit(message) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)

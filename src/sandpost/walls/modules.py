"""The folder that sandboxes see as `/modules`: there before the first of them, for what is mounted must be."""

import contextlib
import os
from collections.abc import Iterator

from sandpost.kernel.files import open_folder
from sandpost.model.errors import HostUnfit
from sandpost.model.host import Host
from sandpost.model.modules import REGISTRIES

_MODE = 0o755
_KEEP = ".keep"
"""An empty file in the folder of each registry, so that none is removed when its last module goes: a sandbox of runsc
sees what comes into these, and not what comes beside them or in their place (`engines.runsc`)."""
_FILE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Without waiting for a reader where somebody has put a FIFO."""


def ensure(host: Host) -> None:
    """Make what is missing of the folder. Raises `HostUnfit` for what is no folder: the api's user writes there.

    What is above is root's. Its owner could put a link in the folder's place, and a mount follows links.
    """
    api, gid = host.users.api, host.users.gid
    with _folder(host.modules_dir, 0, gid), _folder(host.modules_ready, api, gid) as ready:
        for name in REGISTRIES:
            with _folder(name, api, gid, within=ready) as registry:
                try:
                    os.close(os.open(_KEEP, _FILE, 0o644, dir_fd=registry))
                except OSError as error:
                    path = os.path.join(host.modules_ready, name, _KEEP)
                    raise HostUnfit(f"{path} is no file that can be written ({error.strerror}): remove it") from error
        lock = os.open(host.modules_lock, _FILE, 0o600)
        try:
            os.fchown(lock, api, gid)
        finally:
            os.close(lock)


@contextlib.contextmanager
def _folder(path: str, uid: int, gid: int, within: int | None = None) -> Iterator[int]:
    try:
        # No link is followed, and what lies in it is reached by what was opened: it is not root's.
        fd = open_folder(path, _MODE, uid, gid, within=within)
    except OSError as error:
        raise HostUnfit(f"{path} is no folder ({error.strerror}): remove it, and add the modules again") from error
    try:
        yield fd
    finally:
        os.close(fd)

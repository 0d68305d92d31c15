"""Which program this is, so that a supervisor knows parts of an older one."""

import hashlib
import os

from sandpost import __version__


def release() -> str:
    """Return the version and a digest of the program's files: sizes and times, which an upgrade changes."""
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(files):
            found = os.stat(os.path.join(folder, name))
            digest.update(f"{folder[len(top) :]}/{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return f"{__version__}+{digest.hexdigest()[:12]}"

"""Where our own program lies, and whether the platform's unprivileged users can read it."""

import os
import stat
import sys
from collections.abc import Iterable


def source_folder() -> str:
    """Return the folder that holds our package."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def program_folders() -> list[str]:
    """Return the folders that a part reads its program from: our sources, the virtual environment, Python itself."""
    python = os.path.dirname(os.path.dirname(os.path.realpath(sys.executable)))
    folders = (source_folder(), sys.prefix, sys.base_prefix, python)
    return list(dict.fromkeys(os.path.abspath(folder) for folder in folders))


def unreadable(folders: Iterable[str]) -> list[str]:
    """Return those of `folders` that others cannot read themselves, wherever they lie."""
    lacking = []
    for folder in folders:
        paths = (folder, os.path.join(folder, "sandpost", "__init__.py"), os.path.join(folder, "pyvenv.cfg"))
        for path in filter(os.path.exists, paths):
            wanted = stat.S_IROTH | (stat.S_IXOTH if os.path.isdir(path) else 0)
            if os.stat(path).st_mode & wanted != wanted:
                lacking.append(folder)
                break
    return lacking

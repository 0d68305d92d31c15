"""A throw-away copy of the program with a wall taken out of its code, and a Python that runs it.

The product has no switch that leaves a wall out; a test that must see a wall missing changes a copy of the code.
"""

import contextlib
import os
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import sandpost

_SOURCE = Path(sandpost.__file__).parent


class Edit(NamedTuple):
    """In `file` the text `old`, which stands there once, becomes `new`."""

    file: str
    old: str
    new: str

    def text(self) -> str:
        """What stands in the file as it is."""
        return (_SOURCE / self.file).read_text()


@contextlib.contextmanager
def weakened(*edits: Edit) -> Iterator[str]:
    """Yield the path of a `sandpost` command of a copy that is so edited; without edits, of a plain copy."""
    folder = Path(tempfile.mkdtemp(prefix="sandpost-weakened-"))
    try:
        folder.chmod(0o755)
        shutil.copytree(_SOURCE, folder / "src" / "sandpost", ignore=shutil.ignore_patterns("__pycache__"))
        for file, old, new in edits:
            changed = folder / "src" / "sandpost" / file
            text = changed.read_text()
            assert text.count(old) == 1, f"{file} has {text.count(old)} times: {old}"
            changed.write_text(text.replace(old, new))
        yield str(_environment(folder))
    finally:
        shutil.rmtree(folder)


def _environment(folder: Path) -> Path:
    """Make a virtual environment of the same Python and packages, but for our own; return its `sandpost`."""
    env = folder / "env"
    packages = env / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    # Parts see the folders of their program alone: what it imports must lie there. The real program's .pth must not.
    own = shutil.ignore_patterns("__editable__*", "__pycache__")
    shutil.copytree(sysconfig.get_path("purelib"), packages, ignore=own, copy_function=_link)
    shutil.copy(Path(sysconfig.get_path("data")) / "pyvenv.cfg", env)
    (env / "bin").mkdir()
    (env / "bin" / "python").symlink_to(Path(sysconfig.get_path("scripts"), "python").resolve())
    (packages / "paths.pth").write_text(f"{folder / 'src'}\n")
    command = env / "bin" / "sandpost"
    command.write_text(
        f"#!{env / 'bin' / 'python'}\nimport sys\nfrom sandpost.__main__ import main\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    return command


def _link(source: str, target: str) -> None:
    """Name a file a second time, or copy it to another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)

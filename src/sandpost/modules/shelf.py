"""The folders of modules: one version appears by a rename and goes by one, whatever dies in between.

Below `ready` lies what sandboxes see at `/modules`: `npm/<name>/<version>/`, `pypi/<name>/<version>/`. What is being
put together stands beside its place as `.new-<id>`, which its owner alone may enter, what is being removed as
`.old-<id>`: neither is a version's name, and a start removes both (`sweep`).
"""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from sandpost.model.errors import SandpostError
from sandpost.model.modules import FACTS, REGISTRIES, Facts, Registry
from sandpost.model.specs import Spec, parse_spec

_NEW, _OLD = ".new-", ".old-"
_FACTS_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Shelf:
    """The store's folder `ready`. One process works on it at a time."""

    ready: str

    def stage(self, spec: Spec) -> "Staged":
        """Return a version that can be put together; nothing is made yet."""
        place = os.path.join(self.ready, spec.folder)
        return Staged(os.path.join(os.path.dirname(place), _NEW + secrets.token_hex(6)), place)

    def remove(self, spec: Spec) -> bool:
        """Take a version away; False if there is none. Who has its files open goes on reading them."""
        place = os.path.join(self.ready, spec.folder)
        aside = os.path.join(os.path.dirname(place), _OLD + secrets.token_hex(6))
        try:
            os.rename(place, aside)
        except FileNotFoundError:
            return False
        # It is told as gone: a crash of the machine must not bring it back.
        _flush(os.path.dirname(place))
        shutil.rmtree(aside)
        self._prune(os.path.dirname(place))
        return True

    def facts(self, spec: Spec) -> Facts | None:
        """Return what stands in a version's folder; None if there is no such version, or nobody knows what it is."""
        try:
            with open(os.path.join(self.ready, spec.folder, FACTS), "rb") as file:
                found = msgspec.json.decode(file.read(_FACTS_BYTES), type=Facts)
        except (OSError, msgspec.MsgspecError):
            return None
        return found if found.spec == str(spec) else None

    def versions(self) -> Iterator[Spec]:
        """Yield what is there; folders with other names than a version's are passed by."""
        for registry, name, above in self._names():
            for entry in _folders(above):
                with contextlib.suppress(SandpostError):
                    spec = parse_spec(f"{registry}:{name}{'@' if registry == 'npm' else '=='}{entry}")
                    # Another spelling of the same is none that we made.
                    if os.path.join(self.ready, spec.folder) == os.path.join(above, entry):
                        yield spec

    def sweep(self) -> int:
        """Remove what a killed process left half made or half removed; return how many folders that were."""
        count = 0
        for _, _, above in list(self._names()):
            for entry in _folders(above):
                if entry.startswith((_NEW, _OLD)):
                    shutil.rmtree(os.path.join(above, entry))
                    count += 1
            self._prune(above)
        return count

    def make(self) -> None:
        """Make the folders that stay, whatever comes and goes in them: sandboxes of runsc look no further up."""
        for registry in REGISTRIES:
            os.makedirs(os.path.join(self.ready, registry), mode=0o755, exist_ok=True)

    def _names(self) -> Iterator[tuple[Registry, str, str]]:
        for registry in REGISTRIES:
            top = os.path.join(self.ready, registry)
            for name in _folders(top):
                if not name.startswith("@"):
                    yield registry, name, os.path.join(top, name)
                    continue
                for inner in _folders(os.path.join(top, name)):
                    yield registry, f"{name}/{inner}", os.path.join(top, name, inner)

    def _prune(self, folder: str) -> None:
        """Remove the folder of a name, and of its scope, that hold nothing any more; those of the registries stay."""
        with contextlib.suppress(OSError):
            while os.path.dirname(folder) != self.ready:
                os.rmdir(folder)
                folder = os.path.dirname(folder)


class Staged:
    """A version that is being put together: `begin`, then `keep` makes it one; `drop` leaves nothing of it, whenever.

    One thread.
    """

    def __init__(self, path: str, place: str) -> None:
        self._path = path
        self._place = place
        self._files: list[str] = []
        self._folders: list[str] = [path]
        self._file = -1

    def begin(self) -> None:
        """Make the folder that it stands in until it is whole."""
        os.makedirs(os.path.dirname(self._place), mode=0o755, exist_ok=True)
        os.mkdir(self._path, 0o700)

    def folder(self, path: str) -> None:
        """Make a folder, whose parent is there."""
        made = os.path.join(self._path, path)
        os.mkdir(made, 0o755)
        self._folders.append(made)

    def file(self, path: str, *, runs: bool) -> None:
        """Begin a file, whose folder is there; `write` goes there from now on."""
        self._close()
        made = os.path.join(self._path, path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(made, flags, 0o755 if runs else 0o644)
        self._files.append(made)

    def write(self, data: bytes) -> None:
        """Add to the file that was begun last."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def keep(self, facts: Facts) -> bool:
        """Make it durable, and then a version that everybody sees; False if there is one by now, which stays."""
        self.file(FACTS, runs=False)
        self.write(msgspec.json.encode(facts))
        self._close()
        for path in (*self._files, *reversed(self._folders)):
            _flush(path)
        os.chmod(self._path, 0o755)  # noqa: S103  (sandboxes' users read it)
        try:
            os.rename(self._path, self._place)
        except OSError as error:
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
            self.drop()
            return False
        _flush(os.path.dirname(self._place))
        return True

    def drop(self) -> None:
        """Remove all of it."""
        self._close()
        shutil.rmtree(self._path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(self._place))

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _folders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _flush(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

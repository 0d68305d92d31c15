"""What an entry of a module's archive may be. Pure.

A module is files and folders below its own folder, nothing else: no links (npm and pip write none that are needed), no
devices, no name that leaves or that comes twice. Modes say only whether a file can be run.
"""

from dataclasses import dataclass, field

from sandpost.model.errors import shown
from sandpost.model.modules import FACTS
from sandpost.model.units import show_size
from sandpost.modules.tar import Entry

INTEGRITY = ".integrity.json"
"""The first entry: hashes by package, as the builder says them. It is read, not unpacked."""
INTEGRITY_BYTES = 4 << 20
MAX_PATH = 1024
MAX_PART = 255
"""Bytes of a name in a folder, as file systems have it."""
MAX_DEPTH = 64
_SHOWN = 120
"""Letters of a path that stand in a refusal."""
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a FIFO",
    b"7": "a file of a kind that nobody has",
    b"S": "a sparse file",
    b"x": "a header of another form of tar",
    b"g": "a header of another form of tar",
}


class BadModule(Exception):  # noqa: N818 - it says what is wrong
    """The archive is refused; the message is a sentence with what to do, where there is something."""


@dataclass(frozen=True, slots=True)
class Item:
    """What is to be made: a folder, or a file of `size` bytes. `path` is relative, with plain parts."""

    path: str
    folder: bool
    runs: bool
    size: int


@dataclass(slots=True)
class Judge:
    """Judges the entries of one archive in their order.

    `size` and `files` bound it, folders counted as files, and `room`: what the modules that are there leave of `keep`.
    """

    size: int
    files: int
    room: int
    keep: int
    folders: set[str] = field(default_factory=set)
    plain: set[str] = field(default_factory=set)
    bytes: int = 0

    def judge(self, entry: Entry) -> Item | None:
        """Return what to make of `entry`; None for the archive's own root. Raises `BadModule`."""
        path = _path(entry.name)
        if entry.kind not in {b"0", b"\0", b"5"}:
            what = _KINDS.get(entry.kind, "something that is neither file nor folder")
            raise BadModule(f"its archive holds {what} (`{shown(path, _SHOWN)}`): modules are files and folders alone")
        folder = entry.kind == b"5"
        if folder and entry.size:
            raise BadModule(f"its archive holds a folder with contents of its own (`{shown(path or '.', _SHOWN)}`)")
        if not path:
            if not folder:
                raise BadModule("its archive has a file where its root should be")
            return None
        above = path.rpartition("/")[0]
        if path in self.folders or path in self.plain:
            raise BadModule(f"its archive holds `{shown(path, _SHOWN)}` twice")
        if above and above not in self.folders:
            raise BadModule(f"its archive puts `{shown(path, _SHOWN)}` into a folder that it does not hold")
        if path == FACTS:
            raise BadModule(f"its archive holds `{FACTS}`, which is the platform's own")
        (self.folders if folder else self.plain).add(path)
        self.bytes += entry.size
        if self.bytes > self.size:
            raise BadModule(f"it is larger than `modules.size` ({show_size(self.size)}): raise that if you trust it")
        if self.bytes > self.room:
            raise BadModule(
                f"it is larger than what is left of `modules.keep` ({show_size(self.room)} of {show_size(self.keep)}): "
                "`sandpost module gc` and `rm` make room, or raise it"
            )
        if len(self.folders) + len(self.plain) > self.files:
            raise BadModule(f"it has more files than `modules.files` ({self.files}): raise that if you trust it")
        # All that is kept of a mode: no set-uid, no set-gid, nobody's right to write.
        return Item(path, folder, bool(entry.mode & 0o100), entry.size)


def _path(raw: bytes) -> str:
    """Return the relative path that `raw` means, without `./` and a final slash; empty for the root itself."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise BadModule(f"its archive has a name that is not UTF-8: {raw[:80]!a}") from None
    quoted = shown(text, _SHOWN)
    if text.startswith("/"):
        raise BadModule(f"its archive names an absolute path: `{quoted}`")
    path = text.removeprefix("./").removesuffix("/")
    if path in {"", "."}:
        return ""
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        raise BadModule(f"its archive names a path that leaves, or that is written oddly: `{quoted}`")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        raise BadModule(f"its archive has a name with a control character: `{quoted}`")
    if len(raw) > MAX_PATH or len(parts) > MAX_DEPTH or any(len(part.encode()) > MAX_PART for part in parts):
        raise BadModule(f"its archive has a path that is too long or too deep: `{quoted}`")
    return path

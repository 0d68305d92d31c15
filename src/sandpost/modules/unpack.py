"""Unpacks what a builder sends into a staged version: bytes in, files out, each entry judged before it is made."""

import hashlib
import time

import msgspec

from sandpost.model.modules import Facts
from sandpost.model.specs import Spec
from sandpost.modules.judge import INTEGRITY, INTEGRITY_BYTES, BadModule, Judge
from sandpost.modules.shelf import Staged
from sandpost.modules.tar import BadTar, Entry, Reader

_MOST_HASHES = 20_000
_LONGEST = 512


class Unpacker:
    """One archive. `feed` all of it, then `finish`; both may raise `BadModule`, or `OSError` of the disk."""

    def __init__(self, spec: Spec, staged: Staged, judge: Judge, *, scripts: bool) -> None:
        self._spec = spec
        self._staged = staged
        self._scripts = scripts
        self._reader = Reader()
        self._judge = judge
        self._digest = hashlib.sha256()
        self._said: bytearray | None = None
        """The builder's hashes, while they come."""
        self._integrity: dict[str, str] | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the archive."""
        try:
            for event in self._reader.feed(data):
                if isinstance(event, Entry):
                    self._entry(event)
                elif self._said is not None:
                    self._said += event
                else:
                    self._digest.update(event)
                    self._staged.write(event)
        except BadTar as error:
            raise BadModule(f"its archive {error}") from None

    def finish(self) -> Facts:
        """Return what was unpacked, all of it."""
        try:
            self._reader.finish()
        except BadTar as error:
            raise BadModule(f"its archive {error}") from None
        self._heard()
        wanted = f"node_modules/{self._spec.name}/package.json"
        if self._spec.registry == "npm" and wanted not in self._judge.plain:
            raise BadModule(f"its archive does not hold `{wanted}`")
        if not self._judge.plain:
            raise BadModule("its archive is empty")
        return Facts(
            spec=str(self._spec),
            size=self._judge.bytes,
            files=len(self._judge.plain),
            digest=self._digest.hexdigest(),
            integrity=self._integrity or {},
            scripts=self._scripts,
            done_at=time.time(),
        )

    def _entry(self, entry: Entry) -> None:
        if self._integrity is None and self._said is None:
            if entry.name != INTEGRITY.encode() or entry.kind != b"0" or entry.size > INTEGRITY_BYTES:
                raise BadModule(f"its archive does not begin with `{INTEGRITY}`")
            self._said = bytearray()
            return
        self._heard()
        item = self._judge.judge(entry)
        if item is None:
            return
        self._digest.update(f"{item.path}\0{item.folder:d}{item.runs:d}\0{item.size}\0".encode())
        if item.folder:
            self._staged.folder(item.path)
        else:
            self._staged.file(item.path, runs=item.runs)

    def _heard(self) -> None:
        """Read the hashes that the builder said, once all of them are there."""
        if self._said is None:
            if self._integrity is None:
                raise BadModule("its archive is empty")
            return
        try:
            found = msgspec.json.decode(bytes(self._said), type=dict[str, str])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise BadModule(f"its archive's `{INTEGRITY}` is not JSON of names and hashes") from None
        if len(found) > _MOST_HASHES or any(len(text) > _LONGEST for pair in found.items() for text in pair):
            raise BadModule(f"its archive's `{INTEGRITY}` is too long")
        self._integrity, self._said = found, None

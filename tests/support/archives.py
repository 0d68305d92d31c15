"""Tars as builders send them, good and bad, member by member."""

import io
import tarfile
from collections.abc import Iterable


def member(
    name: str, content: bytes | None = b"", kind: bytes | None = None, mode: int = 0o644, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind or (tarfile.DIRTYPE if content is None else tarfile.REGTYPE)
    info.size, info.mode, info.linkname = len(content or b""), mode, link
    return info, content or b""


def tar(members: Iterable[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()

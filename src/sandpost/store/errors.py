# ruff: noqa: N818 - every name here says what is wrong; a suffix adds nothing
"""What can be wrong with the store, each with what to do about it. Nothing here ever removes or repairs a file."""

import sqlite3

from sandpost.model.errors import Unavailable


class StoreError(Unavailable):
    """The store cannot be used now; what it holds is untouched."""

    reason = "store"


class StoreFull(StoreError):
    """The disk has no room for another write."""

    reason = "store_full"


class StoreReadOnly(StoreError):
    """The file, its folder or its file system cannot be written."""

    reason = "store_read_only"


class StoreCorrupt(StoreError):
    """The file is damaged."""

    reason = "store_corrupt"
    retryable = False


class StoreForeign(StoreError):
    """The file is not one of ours, or of a newer release."""

    reason = "store_foreign"
    retryable = False


class StoreBusy(StoreError):
    """Another process held the store for too long."""

    reason = "store_busy"


def from_sqlite(error: sqlite3.Error, path: str) -> StoreError:
    """Return the typed error for what SQLite said about the file at `path` (https://www.sqlite.org/rescode.html)."""
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return StoreFull(f"the disk of {path} is full, nothing was changed: make room and try again")
    if primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return StoreReadOnly(
            f"{path} cannot be written ({error}): mount its file system read-write, or give file and folder back to "
            "the user that owns the rest of `store/`"
        )
    if primary == sqlite3.SQLITE_CANTOPEN:
        return StoreReadOnly(f"{path} cannot be opened ({error}): check that its folder exists and who owns it")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreCorrupt(
            f"{path} is damaged ({error}) and was left as it is: stop, keep a copy, then bring back a backup or run "
            f"`sqlite3 {path} .recover | sqlite3 recovered.db`"
        )
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(f"{path} is held by another process: try again, and see with `fuser {path}` who holds it")
    return StoreError(f"{path} cannot be used ({error}): look at the disk and its free space, then try again")
